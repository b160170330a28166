"""Which layers hold a kernel, and the refusal of those whose kernel cannot be quantized."""

import fnmatch
import re
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.layer_bits import leaves_of, left_in_float
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.settings.policies import Policy

_WITHOUT_KERNEL = (
    keras.layers.PReLU,
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)


def holds_kernel(layer: Any) -> bool:
    """Whether a layer holds, anywhere inside it, a weight of two or more dimensions.

    Keras's own normalizations and activations do not count, whose weights may have as many.

    Args:
        layer: the layer or operation, built.
    """
    # Frozen kernels too: `trainable_weights` would miss them.
    kernels = any(len(weight.shape) >= 2 for weight in getattr(layer, "weights", []))
    return kernels and type(layer) not in _WITHOUT_KERNEL and not isinstance(layer, keras.Model)


def refuse_unknown_kernels(model: keras.Model, policy: Policy) -> None:
    """Refuses a model with layers that would silently stay in float although they hold a kernel.

    Args:
        model: the model, built.
        policy: what it is to be quantized by.

    Raises:
        UserError: when there are any, with the overrides that leave just them in float.
    """
    leaves = leaves_of(model)
    refused = [
        layer
        for layer in leaves
        if type(layer) not in QUANTIZED_COUNTERPARTS
        and holds_kernel(layer)
        and not left_in_float(layer.name, policy)
    ]
    if not refused:
        return
    patterns = _patterns([layer.name for layer in refused], [layer.name for layer in leaves])
    more = len(refused) - 1
    first = f"Layer {refused[0].name!r} ({type(refused[0]).__name__})"
    holds = f"{first} and {more} more hold kernels" if more else f"{first} holds a kernel"
    overrides = ", ".join(f"{pattern!r}: 'fp'" for pattern in patterns)
    allowed = ", ".join(kind.__name__ for kind in QUANTIZED_COUNTERPARTS)
    raise UserError(
        f"{holds} that cannot be quantized; allowed: {allowed}. To leave "
        f"{'them' if more else 'it'} in float, pass overrides={{{overrides}}} "
        f"(--layer_bits={','.join(f'{pattern}:fp' for pattern in patterns)})."
    )


def _patterns(names: list[str], all_names: list[str]) -> list[str]:
    """Returns patterns that match just these of all names, one for names that differ in numbers."""
    others = set(all_names) - set(names)
    patterns: dict[str, None] = {}
    for name in names:
        # A number at the end is not left open: `conv*` would match `conv1_relu` too.
        wide = re.sub(r"\d+", "*", name) + ("[0-9]" if name[-1].isdigit() else "")
        for pattern in (wide, re.sub(r"\d", "[0-9]", name), name):
            if not fnmatch.filter(others, pattern) and len(fnmatch.filter(names, pattern)) > 1:
                break
        patterns[pattern] = None
    return list(patterns)
