"""LSQ: multiples of a step size that is learned, one for each number of bits."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.quantization.ops import (
    NOT_FINITE,
    arithmetic_dtype,
    clip,
    integer_levels,
    smallest_normal,
    sum_to_shape_of,
)
from tfcq.quantization.quantizer import Quantizer, Request, SignedQuantizer
from tfcq.settings.bitwidths import HIGHEST_BITS, LOWEST_BITS


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


def step_size_of(step_sizes: keras.Variable, bits: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """Returns the row of a number of bits; what is not positive in it is first set to `initial`.

    Args:
        step_sizes: weight of shape (15, *row), from `Quantizer.build`.
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


class _LSQ(Quantizer):
    """What LSQ's quantizers of weights and of activations share."""

    learns_scale = True
    # Whether levels may be negative.
    signed = True

    def scale_weight(self, shape: tuple[int | None, ...]) -> dict[str, Any]:
        """Returns `step_size`, one row for each number of bits from 2 to 16.

        Bits may change from pass to pass, and each number of them needs steps of its own. A row is
        zero until the first pass that uses it (`step_size_of`).

        Args:
            shape: shape of one row.
        """
        rows = HIGHEST_BITS - LOWEST_BITS + 1
        return {
            "name": "step_size",
            "shape": (rows, *shape),
            "initializer": "zeros",
            "aggregation": "mean",
        }

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor as multiples of the step size of its bits.

        Args:
            tensor: float tensor.
            request: how.
        """
        initial = initial_step_size(tensor, request.bits, request.axes, self.signed)
        step_size = step_size_of(request.learned, request.bits, initial)
        return learned_step_quantize(tensor, step_size, request.bits, self.signed)


@keras.saving.register_keras_serializable("tfcq")
class LSQWeightQuantizer(_LSQ):
    """Weights rounded to multiples of learned step sizes (`lsq.learned_step_quantize`).

    The layer's weight `step_size` has one row for each number of bits from 2 to 16; a row starts
    at 2 mean|w| / sqrt(Qp) in the first pass that uses it, and again should a step size have been
    trained to zero or below.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
        per_channel: one step size per output channel, or one for the tensor.
    """

    def __init__(self, bits: int | None = None, per_channel: bool = True) -> None:
        super().__init__(bits)
        self.per_channel = per_channel


@keras.saving.register_keras_serializable("tfcq")
class LSQActivationQuantizer(_LSQ, SignedQuantizer):
    """Activations rounded to multiples of a learned step size, one per tensor.

    The layer's weight `step_size` has one entry for each number of bits from 2 to 16, which starts
    as those of `LSQWeightQuantizer` do, from the first batch.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """
