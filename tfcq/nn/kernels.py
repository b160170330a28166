"""Which layers hold a kernel, and the refusal of those whose kernel cannot be quantized."""

import dataclasses
import fnmatch
import glob
import re
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.settings.policies import FLOAT, Policy, parse_layer_bits

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
    leaves = _leaves(model)
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


def _leaves(model: keras.Model) -> list[Any]:
    """Returns the layers of a model and of those nested in it."""
    parts = (_leaves(one) if isinstance(one, keras.Model) else [one] for one in model.layers)
    return [layer for part in parts for layer in part]


def left_in_float(name: str, policy: Policy) -> bool:
    """Whether a policy leaves a layer in float by its name.

    Args:
        name: the layer's name.
        policy: the policy, of whose overrides the first that matches wins.
    """
    matching = (bits for pattern, bits in policy.overrides if fnmatch.fnmatchcase(name, pattern))
    first = next(matching, None)
    return first is not None and parse_layer_bits(first).weights == FLOAT


def opened(policy: Policy, model: keras.Model) -> Policy:
    """Returns a policy in which bits of a nested model are those of each layer in it.

    Args:
        policy: the policy, whose overrides may name nested models.
        model: the model.

    Raises:
        UserError: when a layer in a nested model that is named shares its name with one outside.
    """
    nested = _nested(model)
    leaves = layer_names(model)
    overrides: list[tuple[str, str]] = []
    for pattern, bits in policy.overrides:
        named = [one for one in nested if fnmatch.fnmatchcase(one.name, pattern)]
        inside = [name for one in named for name in layer_names(one)]
        for name in inside:
            outside = leaves.count(name) > inside.count(name)
            if outside and not fnmatch.fnmatchcase(name, pattern):
                raise UserError(
                    f"Layer bits name {pattern!r}, the model {named[0].name!r}, whose layer "
                    f"{name!r} shares its name with a layer outside; allowed: names of their own."
                )
        if not named or fnmatch.filter(leaves, pattern):
            overrides.append((pattern, bits))
        overrides += [(glob.escape(name), bits) for name in inside]
    return dataclasses.replace(policy, overrides=tuple(overrides))


def layer_names(model: keras.Model) -> list[str]:
    """Returns the names of all layers that compute, nested ones included.

    Args:
        model: the model.
    """
    kind = keras.layers.InputLayer
    return [layer.name for layer in _leaves(model) if not isinstance(layer, kind)]


def known_names(model: keras.Model) -> list[str]:
    """Returns the names that overrides know: of nested models, and of all layers that compute.

    Args:
        model: the model.
    """
    return [*(one.name for one in _nested(model)), *layer_names(model)]


def _nested(model: keras.Model) -> list[keras.Model]:
    """Returns the models nested in a model, at any depth."""
    own = [one for one in getattr(model, "layers", []) if isinstance(one, keras.Model)]
    return own + [deeper for one in own for deeper in _nested(one)]


def _patterns(names: list[str], all_names: list[str]) -> list[str]:
    """Returns patterns that match just these of all names, one for names that differ in numbers."""
    others = set(all_names) - set(names)
    patterns: dict[str, None] = {}
    for name in names:
        exact = glob.escape(name)
        # A number at the end is not left open: `conv*` would match `conv1_relu` too.
        wide = re.sub(r"\d+", "*", exact) + ("[0-9]" if name[-1].isdigit() else "")
        for pattern in (wide, re.sub(r"\d", "[0-9]", exact), exact):
            if not fnmatch.filter(others, pattern) and len(fnmatch.filter(names, pattern)) > 1:
                break
        patterns[pattern] = None
    return list(patterns)
