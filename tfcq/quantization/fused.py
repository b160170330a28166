"""Quantization of large tensors on CPUs in few passes over memory.

TensorFlow makes a pass for each operation; XLA compiles them into one: 1.0 in place of 3.7 ms
forward for 4.2 million activations on two cores, and 3.4 in place of 11.2 ms forward and backward
for 2.4 million weights with a scale a channel. Results have the same bits, but for sums over
weights. What was clipped is computed again in the backward pass, so that nothing is kept for it
beside the input.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Values of one example from which on compiling, about 50 ms a shape, is soon earned back.
LEAST_VALUES = 4096
# The same of a kernel, which is quantized once a step.
LEAST_WEIGHTS = 100_000

# From the gradient of quantized values to that of the values, and to what each gives the scale.
Derivatives = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

_TENSOR, _SCALAR = tf.TensorSpec(None, tf.float32), tf.TensorSpec((), tf.float32)
_compiled = functools.partial(tf.function, jit_compile=True)


def pays(x: tf.Tensor, scale: tf.Tensor) -> bool:
    """Whether a tensor is quantized in one pass: on a CPU, and large.

    Args:
        x: float tensor.
        scale: its scale.
    """
    return many_activations(x) if scale.shape.rank == 0 else large(x)


def many_activations(x: tf.Tensor) -> bool:
    """Whether passes over activations are compiled: on a CPU, where there are many an example.

    Args:
        x: float tensor, examples first.
    """
    example = x.shape[1:] if x.shape.rank else tf.TensorShape(None)
    return _reaches(example, LEAST_VALUES) and x.dtype == tf.float32 and not accelerated()


def large(weights: tf.Tensor) -> bool:
    """Whether passes over weights are compiled: on a CPU, where there are many.

    Args:
        weights: float tensor.
    """
    many = _reaches(weights.shape, LEAST_WEIGHTS)
    return many and weights.dtype == tf.float32 and not accelerated()


def where_large(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns a function that is compiled where its first argument is large.

    Args:
        function: takes weights, other tensors, and Python values that are compiled in.
    """
    compiled = _compiled(function)

    @functools.wraps(function)
    def chosen(weights: tf.Tensor, *others: Any) -> tf.Tensor:
        return (compiled if large(weights) else function)(weights, *others)

    return chosen


def where_many(tensors: int, scalars: int) -> Callable[..., Callable[..., tf.Tensor]]:
    """Returns a decorator of what is compiled, once for all shapes, where activations are many.

    Args:
        tensors: its first arguments, tensors of the shape of what it returns.
        scalars: the arguments after them, tensors of shape ().
    """

    def decorated(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        signature = [_TENSOR] * tensors + [_SCALAR] * scalars
        compiled = _compiled(function, input_signature=signature)

        @functools.wraps(function)
        def chosen(x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
            if many_activations(x):
                return tf.ensure_shape(compiled(x, *others), x.shape)
            return function(x, *others)

        return chosen

    return decorated


@functools.cache
def accelerated() -> bool:
    """Whether there is a GPU or TPU.

    Their kernels are bound by memory too, but XLA for GPUs needs parts of CUDA that may lack.
    """
    return any(tf.config.list_physical_devices(kind) for kind in ("GPU", "TPU"))


def _reaches(shape: tf.TensorShape, size: int) -> bool:
    return shape.is_fully_defined() and math.prod(shape) >= size


def quantized(
    values: tf.Tensor, scale: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor
) -> tuple[tf.Tensor, Derivatives]:
    """Returns clip(round(x / s), lowest, highest) s, and what gives its derivatives.

    Args:
        values: x, float32 tensor.
        scale: s, float32 of shape () or with size 1 along every shared axis.
        lowest: least level, float32 of shape ().
        highest: greatest level, float32 of shape ().
    """
    grid = scale, lowest, highest

    def derivatives(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _where_inside(upstream, values, *grid), _by_scale(upstream, values, *grid)

    return tf.ensure_shape(_rounded(values, *grid), values.shape), derivatives


@_compiled(input_signature=[_TENSOR] * 2 + [_SCALAR] * 2)
def _rounded(x: tf.Tensor, scale: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    return _levels(x / scale, lowest, highest) * scale


@_compiled(input_signature=[_TENSOR] * 3 + [_SCALAR] * 2)
def _where_inside(
    upstream: tf.Tensor, x: tf.Tensor, scale: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor
) -> tf.Tensor:
    """Returns a gradient where nothing was clipped, else zero."""
    integer = tf.round(x / scale)
    return tf.where(tf.equal(integer, tf.clip_by_value(integer, lowest, highest)), upstream, 0.0)


@_compiled(input_signature=[_TENSOR] * 3 + [_SCALAR] * 2)
def _by_scale(
    upstream: tf.Tensor, x: tf.Tensor, scale: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor
) -> tf.Tensor:
    """Returns a gradient times level - (x / s where nothing was clipped, else 0)."""
    ratio = x / scale
    level = _levels(ratio, lowest, highest)
    # A ratio that overflowed was clipped; a product with it would be NaN.
    return upstream * (level - tf.where(tf.equal(tf.round(ratio), level), ratio, 0.0))


def _levels(ratio: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.round(ratio), lowest, highest)
