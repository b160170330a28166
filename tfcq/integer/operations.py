"""What int8 runtimes have: which layers, on which grids."""

from collections.abc import Collection, Mapping
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.integer.recognized import activation_name, keeps_batch
from tfcq.integer.writers import FUNCTIONS, WRITERS
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import FLOAT_COUNTERPARTS, QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import keeps_values

# The kind of a node that is left in float.
FLOAT_LAYER = "float"
# Of functions whose results runtimes store on grids of their own making.
FIXED_RANGES = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# The ends of ReLUs that runtimes know, none among them.
RELU_ENDS = (None, 1, 6)
_FUSING = {"Conv2D", "DepthwiseConv2D", "Dense", "Add", "Subtract", "Multiply", "ConstantSum"}
_OF_TWO = {"Add", "Subtract", "Multiply"}
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


def is_float(operation: Any) -> bool:
    """Whether a layer of an integer form is computed in float.

    Args:
        operation: the layer.
    """
    quantized = isinstance(operation, ActivationQuantizer) or type(operation) in FLOAT_COUNTERPARTS
    return not quantized and (type(operation) in QUANTIZED_COUNTERPARTS or bool(lack(operation)))


def lack(operation: Any) -> str:
    """Returns what int8 runtimes have not of a layer; empty where they have all.

    Args:
        operation: a layer of a flat model, see `tfcq.integer.flat`.
    """
    kind = type(operation).__name__
    if kind not in LAYERS:
        return kind
    # Padding of the last two axes is that of any tensor.
    first = getattr(operation, "data_format", None) == "channels_first"
    if first and kind != "ZeroPadding2D":
        return f"{kind} with data_format='channels_first'"
    if kind == "Activation" and activation_name(operation.activation) not in FUNCTIONS:
        function = operation.activation
        return f"activation {getattr(function, '__name__', type(function).__name__)!r}"
    if kind == "ReLU" and operation.max_value not in RELU_ENDS:
        return f"ReLU with max_value={operation.max_value:g}"
    for name in ("threshold", "negative_slope") if kind == "ReLU" else ():
        if getattr(operation, name):
            return f"ReLU with {name}={getattr(operation, name):g}"
    if kind in _OF_TWO and len(keras.tree.flatten(operation.input)) == 1:
        return f"{kind} of a constant that is neither one number nor one for each channel"
    if kind == "Reshape" and not keeps_batch(operation):
        return "Reshape of the batch"
    if kind == "UpSampling2D" and operation.interpolation != "nearest":
        return f"UpSampling2D with interpolation={operation.interpolation!r}"
    return ""


def refuse_foreign(
    model: keras.Model, origins: Mapping[str, str], floats: Collection[str] = ()
) -> None:
    """Refuses a model with layers that int8 runtimes do not have.

    Args:
        model: a flat model.
        origins: by the name of a layer, that of the user's layer.
        floats: names of layers that are left in float.

    Raises:
        UserError: naming them, or one in float with several outputs.
    """
    for operation in model.operations:
        count = len(keras.tree.flatten(operation.output))
        if operation.name in floats and count != 1:
            raise UserError(
                f"Layer {operation.name!r} has {count} outputs; allowed in float between integers: "
                "one."
            )
    lacked = {o.name: why for o in model.operations if o.name not in floats and (why := lack(o))}
    if lacked:
        found = [f"{name!r} ({why})" for name, why in lacked.items()]
        others = f" and {len(found) - 3} more" if len(found) > 3 else ""
        users = dict.fromkeys(origins.get(name, name) for name in lacked)
        names = ",".join(f"{name}:fp" for name in users)
        raise UserError(
            f"Model {model.name!r} would stay in float at {', '.join(found[:3])}{others}; allowed: "
            f"{', '.join(sorted(LAYERS - {'InputLayer', 'Activation'}))}, and as activations "
            f"relu, relu6, silu, hard_sigmoid, hard_silu, {', '.join(sorted(FUNCTIONS))}; or "
            f"between integers in float: --layer_bits={names}."
        )
