"""Learned scales: LSQ's step sizes and PACT's clipping, as tensor functions and layer weights."""

import keras
import tensorflow as tf

from tfcq.quantization.ops import (
    NOT_FINITE,
    arithmetic_dtype,
    checked,
    clip,
    integer_levels,
    smallest_normal,
    sum_to_shape_of,
)
from tfcq.settings.bitwidths import HIGHEST_BITS, LOWEST_BITS

INITIAL_CLIPPING = 10.0


def scale_dtype(layer: keras.layers.Layer) -> str:
    """Returns the dtype of a layer's ranges and scales: float64 if its weights are, else float32.

    Args:
        layer: the layer.
    """
    return "float64" if layer.variable_dtype == "float64" else "float32"


def initial_step_size(
    x: tf.Tensor, bits: tf.Tensor, axes: list[int] | None, signed: bool
) -> tf.Tensor:
    """Returns the step size that LSQ starts from, 2 mean|x| / sqrt(Qp) (LSQ, Sec. 2.1).

    Args:
        x: float tensor of any shape.
        bits: int32 tensor of shape ().
        axes: axes that share a step size; None for all (per tensor).
        signed: whether levels are -2^(bits-1)..2^(bits-1)-1 or 0..2^bits-1; Qp is the highest.

    Returns:
        A tensor that broadcasts against `x`; 0 where every value is zero.

    Raises:
        tf.errors.InvalidArgumentError: when `x` holds NaN or infinity.
    """
    dtype = arithmetic_dtype(x.dtype)
    magnitudes = tf.abs(tf.stop_gradient(tf.cast(x, dtype)))
    mean = tf.reduce_mean(magnitudes, axis=axes, keepdims=axes is not None)
    kind = "weights or activations"
    mean = tf.debugging.check_numerics(mean, f"{NOT_FINITE} in {kind} to be quantized")
    _, highest = integer_levels(bits, signed, dtype)
    return 2 * mean / tf.sqrt(highest)


def learned_step_quantize(
    x: tf.Tensor, step_size: tf.Tensor, bits: tf.Tensor, signed: bool
) -> tf.Tensor:
    """Rounds a tensor to multiples of a learned step size (LSQ, Eqs. 1 to 3).

    With v = x / s, levels Qn..Qp (signed: -2^(bits-1)..2^(bits-1)-1, else 0..2^bits-1) and
    `inside` where Qn <= v <= Qp:

        level = round(clip(v, Qn, Qp))      y = level * s
        dy/dx = 1 if inside else 0
        dy/ds = g * (level - (v if inside else 0))      g = 1 / sqrt(size of x * Qp)

    (g: LSQ, Sec. 2.2.) The ends count as inside, so that zeros behind a ReLU let gradients pass.

    Args:
        x: float tensor of any shape.
        step_size: float tensor of shape (), or of the rank of `x` with size 1 along every shared
            axis. Below the smallest normal number it counts as the constant 1.
        bits: int32 tensor of shape ().
        signed: whether levels may be negative.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        tf.errors.InvalidArgumentError: when the step size is NaN or infinite.
    """
    dtype = arithmetic_dtype(x.dtype)
    lowest, highest = integer_levels(bits, signed, dtype)
    gradient_scale = tf.math.rsqrt(tf.cast(tf.size(x), dtype) * highest)

    @tf.custom_gradient
    def quantize(values, step_size):
        ratio = values / step_size
        clipped = clip(ratio, lowest, highest)
        level = tf.round(clipped)
        inside = tf.equal(ratio, clipped)

        def gradient(upstream):
            # A ratio that overflowed was clipped; a product with it would be NaN.
            zero = tf.zeros((), dtype)
            per_step = level - tf.where(inside, ratio, zero)
            to_step_size = gradient_scale * sum_to_shape_of(upstream * per_step, step_size)
            return tf.where(inside, upstream, zero), to_step_size

        return level * step_size, gradient

    step_size = tf.debugging.check_numerics(
        tf.cast(step_size, dtype), f"{NOT_FINITE} in a learned step size"
    )
    step_size = tf.where(step_size >= smallest_normal(dtype), step_size, 1)
    return tf.cast(quantize(tf.cast(x, dtype), step_size), x.dtype)


def clipped_quantize(x: tf.Tensor, clipping: tf.Tensor, bits: tf.Tensor, signed: bool) -> tf.Tensor:
    """Clips a tensor at a learned value `a` and rounds to even steps (PACT, Eqs. 1 to 3).

        unsigned: n = 2^bits - 1          clipped = clip(x, 0, a)
        signed:   n = 2^(bits-1) - 1      clipped = clip(x, -a, a)
        y = round(clipped * n / a) * a / n
        dy/dx = 1 strictly inside the clipping, else 0
        dy/da = 1 where x >= a, -1 where signed and x <= -a, else 0

    PACT itself is unsigned; the signed form is its mirror image and represents zero. DoReFa-Net's
    activations are the same with a = 1, not learned.

    Args:
        x: float tensor of any shape.
        clipping: float tensor of shape (); a negative one counts as 0.
        bits: int32 tensor of shape ().
        signed: whether values may be negative.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        tf.errors.InvalidArgumentError: when `x` or the clipping is NaN or infinite.
    """
    dtype = arithmetic_dtype(x.dtype)
    _, steps = integer_levels(bits, signed, dtype)

    @tf.custom_gradient
    def quantize(values, clipping):
        upper = tf.maximum(clipping, 0)
        lower = -upper if signed else tf.zeros((), dtype)
        scale = tf.maximum(upper / steps, smallest_normal(dtype))
        outputs = tf.round(clip(values, lower, upper) / scale) * scale

        def gradient(upstream):
            zero = tf.zeros((), dtype)
            above, below = values >= upper, values <= lower
            to_clipping = tf.reduce_sum(tf.where(above, upstream, zero))
            if signed:
                to_clipping -= tf.reduce_sum(tf.where(below, upstream, zero))
            return tf.where(above | below, zero, upstream), to_clipping

        return outputs, gradient

    values = checked(tf.cast(x, dtype), "activations to be quantized")
    clipping = tf.debugging.check_numerics(
        tf.cast(clipping, dtype), f"{NOT_FINITE} in a learned clipping"
    )
    return tf.cast(quantize(values, clipping), x.dtype)


def add_step_sizes(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Variable:
    """Returns a new weight `step_size` of a layer, one row for each number of bits from 2 to 16.

    Bits may change from pass to pass, and each number of them needs steps of its own. A row is
    zero until the first pass that uses it (`step_size_of`).

    Args:
        layer: the layer.
        shape: shape of one row.
    """
    return layer.add_weight(
        name="step_size",
        shape=(HIGHEST_BITS - LOWEST_BITS + 1, *shape),
        initializer="zeros",
        dtype=scale_dtype(layer),
        autocast=False,
        aggregation="mean",
    )


def step_size_of(step_sizes: keras.Variable, bits: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """Returns the row of a number of bits; what is not positive in it is first set to `initial`.

    Args:
        step_sizes: weight of shape (15, *row), from `add_step_sizes`.
        bits: int32 tensor of shape (), 2 to 16.
        initial: float tensor of the shape of a row. Where it is zero, nothing is set yet.
    """
    index = tf.cast(bits, tf.int32) - LOWEST_BITS
    row = tf.convert_to_tensor(step_sizes)[index]
    zero = tf.zeros((), row.dtype)
    missing = tf.where(row > 0, zero, tf.cast(initial, row.dtype) - row)
    chosen = tf.equal(tf.range(HIGHEST_BITS - LOWEST_BITS + 1), index)
    chosen = tf.reshape(chosen, [-1, *[1] * row.shape.rank])
    # Not Keras's assign_add, which assigns the sum: its mean over replicas would move set rows.
    step_sizes.value.assign_add(tf.where(chosen, missing, zero))
    return tf.convert_to_tensor(step_sizes)[index]
