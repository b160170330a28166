"""Which layers an int8 runtime would compute in float, told by their names before anything is done.

As seen with TensorFlow 2.21's converter; `tests/deployment/test_int8_graph.py` converts each kind.
"""

from typing import Any

import keras

from tfcq.nn.placement import KERNEL_CLASSES
from tfcq.settings.policies import INT8

_FUSED = {"linear", "relu", "relu6"}
_IN_FLOAT = {"ELU", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Average"}
_FUNCTIONS_IN_FLOAT = {"elu", "selu", "softplus", "mish", "hard_sigmoid"}


def in_float(model: keras.Model) -> list[str]:
    """Returns the layers that an int8 runtime would compute in float, each with the reason.

    Args:
        model: a functional model, quantizable or not; nested ones are looked into.
    """
    found = []
    for operation in model.operations:
        if isinstance(operation, keras.Model):
            found += in_float(operation)
        elif reason := _reason(operation):
            found.append(f"{operation.name!r} ({reason})")
    return found


def tell_in_float(model: keras.Model, policy: str | None) -> None:
    """Prints what export will refuse of a network, if its policy is that of an int8 runtime.

    Args:
        model: as for `in_float`.
        policy: the name of its policy.
    """
    if policy == INT8.name and (named := in_float(model)):
        others = f" and {len(named) - 3} more" if len(named) > 3 else ""
        print(
            f"Policy {policy}, and an int8 runtime computes in float: {', '.join(named[:3])}"
            f"{others}; tfcq.export will refuse the network."
        )


def _reason(operation: Any) -> str:
    kind = type(operation).__name__.removeprefix("Quantized")
    activation = getattr(operation, "activation", None)
    function = getattr(activation, "__name__", str(activation))
    if kind in KERNEL_CLASSES and activation is not None and function not in _FUSED:
        return f"{kind} with activation {function!r}; use it as a layer behind"
    if kind == "Activation" and function in _FUNCTIONS_IN_FLOAT:
        return f"activation {function!r}"
    if kind == "SeparableConv2D":
        return f"{kind}; write it as DepthwiseConv2D and Conv2D"
    if kind == "ReLU" and operation.max_value not in (None, 6):
        return f"ReLU with max_value={operation.max_value:g}"
    return kind if kind in _IN_FLOAT else ""
