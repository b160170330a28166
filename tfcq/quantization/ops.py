"""Uniform affine fake quantization as pure tensor functions with straight-through gradients.

Written for tensors `x`, a scale `s`, a zero point `z` and integer levels `lowest..highest`:

    level = clip(round(x / s) + z, lowest, highest)        y = (level - z) * s

and, with `inside` where nothing was clipped, the straight-through estimator gives

    dy/dx = 1 if inside else 0
    dy/ds = level - z - (x / s if inside else 0)
    dy/dz = 0 if inside else -s

(SSQL, Eqs. 2 and 3.)
"""

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.quantization import fused
from tfcq.quantization.noise import uniform
from tfcq.settings.policies import ROUNDINGS

# Stands in the message of every error about values that cannot be quantized.
NOT_FINITE = "NaN or infinity"


def arithmetic_dtype(dtype: tf.DType) -> tf.DType:
    """Returns float64 for float64, else float32: scales are never kept in half precision."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def checked(x: tf.Tensor, what: str) -> tf.Tensor:
    """Returns a tensor unchanged, after a check that it holds neither NaN nor infinity.

    The sum tells, in a fraction of the time that `tf.debugging.check_numerics` takes for all
    values and, once more, for their gradient. A sum beyond the range of the dtype is refused too.

    Args:
        x: float tensor of any shape.
        what: what it is, for the error.

    Raises:
        tf.errors.InvalidArgumentError: when it holds NaN or infinity.
    """
    total = tf.reduce_sum(tf.stop_gradient(x))
    with tf.control_dependencies([tf.debugging.check_numerics(total, f"{NOT_FINITE} in {what}")]):
        return tf.identity(x)


def sum_to_shape_of(gradient: tf.Tensor, parameter: tf.Tensor) -> tf.Tensor:
    """Sums a gradient over the axes along which its parameter was broadcast.

    Args:
        gradient: float tensor.
        parameter: float tensor of shape (), or of the rank of `gradient` with size 1 along every
            shared axis.
    """
    if parameter.shape.rank == 0:
        return tf.reduce_sum(gradient)
    axes = [axis for axis, size in enumerate(parameter.shape) if size == 1]
    return tf.reduce_sum(gradient, axis=axes, keepdims=True)


@tf.custom_gradient
def straight_through_round(x: tf.Tensor) -> tuple[tf.Tensor, object]:
    """Rounds half to even; the gradient passes unchanged.

    Args:
        x: float tensor of any shape.
    """
    return tf.round(x), lambda upstream: upstream


def fake_quantize(
    x: tf.Tensor,
    scale: tf.Tensor,
    zero_point: tf.Tensor,
    lowest: tf.Tensor,
    highest: tf.Tensor,
    rounding: str = "nearest",
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Rounds a tensor to the nearest representable levels and back (formulas: this module).

    Args:
        x: float tensor of any shape.
        scale: float tensor, positive, of shape () or of the rank of `x` with size 1 along
            every shared axis.
        zero_point: float tensor with an integer value, of shape () or the shape of `scale`.
        lowest: float tensor of shape (), the lowest integer level.
        highest: float tensor of shape (), the highest integer level.
        rounding: `"nearest"` (half to even), `"floor"`, or `"stochastic"` (up with the
            probability of the fractional part).
        seed: int32 tensor of shape (2,), needed by stochastic rounding.

    Returns:
        A tensor of the shape and dtype of `x`; its arithmetic is float64 for float64, else
        float32.

    Raises:
        UserError: on an unknown rounding, or stochastic rounding without a seed.
    """
    dtype = arithmetic_dtype(x.dtype)

    @tf.custom_gradient
    def quantize(values, scale, zero_point):
        # Clipping before the zero point is added gives the same integers in fewer passes over `x`.
        lower, upper = lowest - zero_point, highest - zero_point
        if rounding == "nearest" and fused.pays(values, scale):
            outputs, derivatives = fused.quantized(values, scale, lower, upper)
        else:
            outputs, derivatives = _passes(values, scale, lower, upper, rounding, seed)

        def gradient(upstream):
            to_values, per_scale = derivatives(upstream)
            to_scale = sum_to_shape_of(upstream * per_scale, scale)
            to_zero_point = sum_to_shape_of((to_values - upstream) * scale, zero_point)
            return to_values, to_scale, to_zero_point

        return outputs, gradient

    outputs = quantize(tf.cast(x, dtype), tf.cast(scale, dtype), tf.cast(zero_point, dtype))
    return tf.cast(outputs, x.dtype)


def _passes(
    values: tf.Tensor,
    scale: tf.Tensor,
    lower: tf.Tensor,
    upper: tf.Tensor,
    rounding: str,
    seed: tf.Tensor | None,
) -> tuple[tf.Tensor, fused.Derivatives]:
    """Returns what `fused.quantized` does, by one operation after another."""
    ratio = values / scale
    integer = to_integer(ratio, rounding, seed)
    level = clip(integer, lower, upper)
    # Kept for the backward pass, one byte an element, instead of two tensors of integers.
    inside_bounds = tf.equal(integer, level)

    def derivatives(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        zero = tf.zeros((), values.dtype)
        to_values = tf.where(inside_bounds, upstream, zero)
        # A ratio that overflowed was clipped; a product with it would be NaN.
        per_scale = level - tf.where(inside_bounds, ratio, zero)
        return to_values, per_scale

    return level * scale, derivatives


def checked_rounding(rounding: str) -> str:
    """Returns a rounding unchanged.

    Args:
        rounding: its name.

    Raises:
        UserError: on an unknown one.
    """
    if rounding not in ROUNDINGS:
        raise unknown_choice("rounding", rounding, ROUNDINGS)
    return rounding


def to_integer(ratio: tf.Tensor, rounding: str, seed: tf.Tensor | None) -> tf.Tensor:
    """Returns a tensor rounded to integers; no gradient.

    Args:
        ratio: float tensor of any shape.
        rounding: as for `fake_quantize`.
        seed: as for `fake_quantize`.

    Raises:
        UserError: on an unknown rounding, or stochastic rounding without a seed.
    """
    if checked_rounding(rounding) == "nearest":
        return tf.round(ratio)
    if rounding == "floor":
        return tf.floor(ratio)
    if seed is None:
        raise UserError("Stochastic rounding needs a seed; received None.")
    return tf.floor(ratio + tf.cast(uniform(tf.shape(ratio), seed), ratio.dtype))


def clip(x: tf.Tensor, lowest: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    """Returns a tensor with what is below or above two bounds moved to them; no gradient.

    Args:
        x: float tensor of any shape.
        lowest: float tensor of shape (), or one that broadcasts against `x`.
        highest: float tensor of the shape of `lowest`, not below it.
    """
    if lowest.shape.rank == highest.shape.rank == 0:
        # One pass over `x`, where `tf.clip_by_value` makes two.
        return tf.raw_ops.ClipByValue(t=x, clip_value_min=lowest, clip_value_max=highest)
    return tf.clip_by_value(x, lowest, highest)


def symmetric_levels(
    bits: tf.Tensor, narrow_range: bool, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the lowest and highest level of signed integers.

    Args:
        bits: int32 tensor of shape ().
        narrow_range: whether to leave out the most negative level, -2^(bits-1).
        dtype: dtype of the result.
    """
    half = tf.cast(tf.bitwise.left_shift(1, _unfolded(bits) - 1), dtype)
    return (1 - half if narrow_range else -half), half - 1


def integer_levels(bits: tf.Tensor, signed: bool, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the lowest and highest level: -2^(bits-1)..2^(bits-1)-1, or 0..2^bits-1.

    Args:
        bits: int32 tensor of shape ().
        signed: whether levels may be negative.
        dtype: dtype of the result.
    """
    if signed:
        return symmetric_levels(bits, False, dtype)
    top = tf.bitwise.left_shift(1, _unfolded(bits)) - 1
    return tf.zeros((), dtype), tf.cast(top, dtype)


def largest_magnitude(x: tf.Tensor, axes: list[int] | None) -> tf.Tensor:
    """Returns max|x|; those that reach it share its gradient, as with `tf.reduce_max`.

        d max / dx = sign(x) / count if |x| = max else 0

    Args:
        x: float tensor.
        axes: axes to reduce, which stay with size 1; None for all, and none stays.
    """

    @tf.custom_gradient
    def reduce(values):
        magnitudes = tf.abs(values)
        largest = tf.reduce_max(magnitudes, axis=axes, keepdims=axes is not None)

        def gradient(upstream):
            reached = tf.equal(magnitudes, largest)
            ones = tf.cast(reached, values.dtype)
            count = tf.reduce_sum(ones, axis=axes, keepdims=axes is not None)
            # values / largest is their sign; where all are zero they have none.
            share = tf.math.divide_no_nan(upstream, count * largest)
            return ones * values * share

        return largest, gradient

    return reduce(x)


def symmetric_scale(
    x: tf.Tensor, bits: tf.Tensor, axes: list[int] | None, narrow_range: bool = False
) -> tf.Tensor:
    """Returns scale = max|x| / ((2^bits - 1) / 2), or max|x| / (2^(bits-1) - 1) when narrow.

    Args:
        x: float tensor.
        bits: int32 tensor of shape ().
        axes: axes that share a scale; None for all (per tensor).
        narrow_range: whether the most negative level is left out.

    Returns:
        A tensor that broadcasts against `x`; 1 where every value is zero, so that the output
        there is zero.

    Raises:
        tf.errors.InvalidArgumentError: when `x` holds NaN or infinity.
    """
    dtype = arithmetic_dtype(x.dtype)
    lowest, highest = symmetric_levels(bits, narrow_range, dtype)
    scale = largest_magnitude(tf.cast(x, dtype), axes) / ((highest - lowest) / 2)
    scale = tf.debugging.check_numerics(scale, f"{NOT_FINITE} in weights to be quantized")
    return tf.where(scale >= smallest_normal(dtype), scale, 1)


def asymmetric_scale(
    minimum: tf.Tensor, maximum: tf.Tensor, bits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns scale = (max - min) / (2^bits - 1), zero point = -round(min / scale), top level.

    The rounding of the zero point is straight-through. A range of a single value `c` gets the
    scale |c| (1 for zero), with which `c` is represented exactly.

    Args:
        minimum: float tensor of shape (), lower end of the range.
        maximum: float tensor of shape (), upper end of the range.
        bits: int32 tensor of shape ().

    Raises:
        tf.errors.InvalidArgumentError: when an end of the range is NaN or infinite.
    """
    dtype = arithmetic_dtype(minimum.dtype)
    minimum, maximum = tf.cast(minimum, dtype), tf.cast(maximum, dtype)
    _, top = integer_levels(bits, False, dtype)
    scale = scale_of_range(minimum, maximum, top, "an activation range")
    return scale, -straight_through_round(minimum / scale), top


def range_of(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns minimum and maximum of a tensor, each of shape (), in the dtype of scales.

    Args:
        x: float tensor.
    """
    dtype = arithmetic_dtype(x.dtype)
    return tf.cast(tf.reduce_min(x), dtype), tf.cast(tf.reduce_max(x), dtype)


def scale_of_range(
    minimum: tf.Tensor, maximum: tf.Tensor, steps: tf.Tensor, what: str
) -> tf.Tensor:
    """Returns (max - min) / steps; |c|, or 1 for zero, where the range is one value `c`.

    Args:
        minimum: float tensor of shape (), lower end of the range.
        maximum: float tensor of shape (), upper end of the range.
        steps: float tensor of shape (), how many steps the range has.
        what: what the range is of, for the error.

    Raises:
        tf.errors.InvalidArgumentError: when the range holds NaN or infinity.
    """
    smallest = smallest_normal(minimum.dtype)
    scale = (maximum - minimum) / steps
    scale = tf.debugging.check_numerics(scale, f"{NOT_FINITE} in {what}")
    single = tf.where(tf.abs(maximum) >= smallest, tf.abs(maximum), 1)
    return tf.where(scale >= smallest, scale, tf.stop_gradient(single))


def _unfolded(bits: tf.Tensor) -> tf.Tensor:
    """Returns bits that graph optimization does not take for a constant.

    It would turn the division by a constant number of steps into a product with its inverse. A
    channel's largest weight sits exactly on a rounding tie, where that last digit decides.
    """
    return tf.raw_ops.PlaceholderWithDefault(input=tf.cast(bits, tf.int32), shape=[])


def smallest_normal(dtype: tf.DType) -> np.floating:
    """Returns the scale below which a quotient would overflow or lose its digits.

    Args:
        dtype: float32 or float64.
    """
    return np.finfo(dtype.as_numpy_dtype).tiny
