"""DoReFa-Net's weights: squeezed into [-1, 1], then rounded to evenly spaced values."""

import tensorflow as tf

from tfcq.quantization.ops import (
    arithmetic_dtype,
    checked,
    integer_levels,
    largest_magnitude,
    smallest_normal,
    straight_through_round,
)


def dorefa_weights(weights: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Squeezes weights into [-1, 1] and rounds them to 2^bits evenly spaced values.

        r = tanh(w) / (2 max|tanh(w)|) + 1/2      y = 2 round(n r) / n - 1      n = 2^bits - 1

    (DoReFa-Net, Eq. 9.) The rounding is straight-through; everything else, the maximum over the
    tensor included, has its own gradient. Zero is not among the values, and their magnitude is
    not the weights': a batch norm has to follow.

    Args:
        weights: float tensor of any shape.
        bits: int32 tensor of shape ().

    Returns:
        A tensor of the shape and dtype of `weights`. Where all weights are zero the maximum
        counts as 1.

    Raises:
        tf.errors.InvalidArgumentError: when `weights` holds NaN or infinity.
    """
    dtype = arithmetic_dtype(weights.dtype)
    squeezed = tf.tanh(checked(tf.cast(weights, dtype), "weights to be quantized"))
    largest = largest_magnitude(squeezed, None)
    largest = tf.where(largest >= smallest_normal(dtype), largest, 1)
    _, steps = integer_levels(bits, False, dtype)
    # Factors are joined where they are single numbers: each product is a pass over the weights.
    level = straight_through_round(squeezed * (steps / (2 * largest)) + steps / 2)
    return tf.cast(level * (2 / steps) - 1, weights.dtype)
