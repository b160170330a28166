"""What int8 runtimes have: which layers, on which grids."""

from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.integer.writers import FUNCTIONS, WRITERS
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import keeps_values

# Of functions whose results runtimes store on grids of their own making.
FIXED_RANGES = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# The ends of ReLUs that runtimes know, none among them.
RELU_ENDS = (None, 1, 6)
_FUSING = {"Conv2D", "DepthwiseConv2D", "Dense", "Add", "Subtract", "Multiply", "ConstantSum"}
LAYERS = {kind.__name__ for kind in QUANTIZED_COUNTERPARTS} | WRITERS.keys() - {"Kernel"}


def keeps_grid(kind: str) -> bool:
    """Whether the outputs of a layer are on the grid of its input, being some of its values.

    Args:
        kind: the layer's class.
    """
    return keeps_values(kind) and kind != "InputLayer"


def fuses_relu(kind: str) -> bool:
    """Whether runtimes clip what a layer computes before they round it, as a ReLU behind does.

    Args:
        kind: the layer's class, quantized or plain.
    """
    return kind.removeprefix("Quantized") in _FUSING


def takes_grid_of_input(kind: str) -> bool:
    """Whether a layer computes, and its outputs are yet on the grid of its input.

    Args:
        kind: the layer's class.
    """
    return kind == "AveragePooling2D"


def refused(model: keras.Model) -> list[str]:
    """Returns the layers that int8 runtimes do not have, each with the reason.

    Args:
        model: a flat model, see `tfcq.integer.flat`.
    """
    return [f"{o.name!r} ({reason})" for o in model.operations if (reason := _reason(o))]


def _reason(operation: Any) -> str:
    kind = type(operation).__name__
    if kind not in LAYERS:
        return kind
    # Padding of the last two axes is that of any tensor.
    first = getattr(operation, "data_format", None) == "channels_first"
    if first and kind != "ZeroPadding2D":
        return f"{kind} with data_format='channels_first'"
    if kind == "Activation" and (name := operation.activation.__name__) not in FUNCTIONS:
        return f"activation {name!r}"
    if kind == "ReLU" and operation.max_value not in RELU_ENDS:
        return f"ReLU with max_value={operation.max_value:g}"
    if kind == "UpSampling2D" and operation.interpolation != "nearest":
        return f"UpSampling2D with interpolation={operation.interpolation!r}"
    return ""


def refuse_foreign(model: keras.Model) -> None:
    """Refuses a model with layers that int8 runtimes do not have.

    Args:
        model: a flat model.

    Raises:
        UserError: naming them.
    """
    if found := refused(model):
        others = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"Model {model.name!r} would stay in float at {', '.join(found[:3])}{others}; allowed: "
            f"{', '.join(sorted(LAYERS - {'InputLayer', 'Activation'}))}, and as activations "
            f"relu, relu6, silu, hard_sigmoid, hard_silu, {', '.join(sorted(FUNCTIONS))}."
        )
