"""What an operation of a model is: constants of channels, or an activation function."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcq.integer.layers import gelu_tanh

_SAME_FUNCTION = {
    "swish": "silu", "hard_swish": "hard_silu", "Relu": "relu", "Relu6": "relu6", "Elu": "elu",
    "Sigmoid": "sigmoid", "Silu": "silu", "HardSilu": "hard_silu", "HardSwish": "hard_silu",
    "HardSigmoid": "hard_sigmoid", "Gelu": "gelu", "Tanh": "tanh", "Softmax": "softmax",
    "LeakyRelu": "leaky_relu", "Swish": "silu",
}  # fmt: skip
Constants = tuple[Any, Any, Any]


def activation_name(function: Any) -> str | None:
    """Returns Keras's name of an activation function; None for one that is not Keras's.

    What a user calls `relu` may be another function.

    Args:
        function: the function of a layer.
    """
    if function is gelu_tanh or function is keras.ops.gelu:
        # The latter is an approximation of itself.
        return gelu_tanh.__name__
    name = getattr(function, "__name__", "")
    known = (keras.activations, keras.ops, tf.nn)
    if not any(getattr(module, name, None) is function for module in known):
        return None
    return _SAME_FUNCTION.get(name, name)


def function_of(operation: Any) -> str | None:
    """Returns the activation function that an operation is; None for another one.

    Args:
        operation: a layer or operation.
    """
    kind = type(operation).__name__
    if kind == "Activation":
        return activation_name(operation.activation)
    if kind == "ReLU":
        plain = not operation.negative_slope and not operation.threshold
        known = {None: "relu", 6: "relu6"}
        return known.get(operation.max_value) if plain else None
    if kind == "Softmax" and operation.axis not in (-1, len(operation.output.shape) - 1):
        return None
    if kind == "Softmax":
        return "softmax"
    if kind == "LeakyRelu" or (kind == "Elu" and operation.alpha != 1):
        return None
    if kind == "Gelu" and operation.approximate:
        return "gelu_tanh"
    return _SAME_FUNCTION.get(kind) if not isinstance(operation, layers.Layer) else None


def constants_of(operation: Any, args: tuple) -> Constants | None:
    """Returns a tensor and its factor and shift by channel; None for another operation.

    Args:
        operation: a layer or operation.
        args: what it is called with.
    """
    kind, one = type(operation).__name__, np.float64(1)
    if kind == "ChannelAffine":
        return args[0], np.asarray(operation.factor), np.asarray(operation.shift)
    if kind == "Rescaling":
        return _if_channels(args[0], operation.scale, operation.offset)
    if kind == "Normalization" and not operation.invert:
        mean, variance = (np.asarray(v, np.float64) for v in (operation.mean, operation.variance))
        factor = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        return _if_channels(args[0], factor, -mean * factor)
    if kind == "BatchNormalization" and operation.axis in (-1, len(operation.output.shape) - 1):
        factor = 1 / np.sqrt(np.asarray(operation.moving_variance, np.float64) + operation.epsilon)
        factor = factor * np.asarray(operation.gamma, np.float64) if operation.scale else factor
        shift = np.asarray(operation.beta, np.float64) if operation.center else 0.0
        return args[0], factor, shift - np.asarray(operation.moving_mean, np.float64) * factor
    arithmetic = kind in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")
    if not arithmetic or isinstance(operation, layers.Layer):
        return None
    held = [isinstance(value, keras.KerasTensor) for value in args]
    if all(held) or not any(held):
        return None
    x, number = args if held[0] else args[::-1]
    number = np.asarray(number, np.float64)
    pairs = {
        "Add": (one, number),
        "Multiply": (number, 0 * number),
        "Subtract": (one, -number) if held[0] else (-one, number),
    }
    if held[0] and kind in ("Divide", "TrueDivide"):
        pairs[kind] = (1 / number, 0 * number)
    return _if_channels(x, *pairs[kind]) if kind in pairs else None


def are_of_channels(x: Any, *values: Any) -> bool:
    """Whether values are each one number for all of a tensor, or one for each of its last axis.

    Args:
        x: the tensor.
        *values: numbers and arrays.
    """
    return all(
        np.ndim(v) <= len(x.shape)
        and (np.size(v) == 1 or np.size(v) == np.shape(v)[-1] == x.shape[-1])
        for v in values
    )


def keeps_batch(operation: Any) -> bool:
    """Whether an operation that gives a tensor another shape leaves its first axis alone.

    Args:
        operation: the operation.
    """
    (batch, *before), (left, *after) = operation.input.shape, operation.output.shape
    return batch == left and (None in (*before, *after) or np.prod(before) == np.prod(after))


def _if_channels(x: Any, factor: Any, shift: Any) -> Constants | None:
    """Returns them where they are of channels."""
    fits = are_of_channels(x, factor, shift)
    return (x, np.asarray(factor, np.float64), np.asarray(shift, np.float64)) if fits else None
