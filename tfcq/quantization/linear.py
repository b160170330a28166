"""Contrastive Quant's linear quantizer (Eq. 9): multiples of a step, nothing clipped."""

import tensorflow as tf

from tfcq.quantization.ops import arithmetic_dtype, integer_levels, scale_of_range, to_integer


def linear_step(minimum: tf.Tensor, maximum: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Returns the step of `round_to_multiples` for a range, of shape ().

        S = (maximum - minimum) / (2^bits - 1)

    (Contrastive Quant, Eq. 9.) A range of one value c has S = |c|, or 1 for zero, so that a
    constant tensor stays as it is.

    Args:
        minimum: float tensor of shape (), lower end of the range.
        maximum: float tensor of shape (), upper end of the range.
        bits: int32 tensor of shape ().

    Raises:
        tf.errors.InvalidArgumentError: when the range holds NaN or infinity.
    """
    _, steps = integer_levels(bits, False, minimum.dtype)
    return scale_of_range(minimum, maximum, steps, "a tensor to be quantized")


def round_to_multiples(
    x: tf.Tensor, step: tf.Tensor, rounding: str = "nearest", seed: tf.Tensor | None = None
) -> tf.Tensor:
    """Rounds a tensor to multiples of a step.

        y = S * round(x / S)      dy/dx = 1

    (Contrastive Quant, Eq. 9.) Nothing is clipped, there is no zero point, and S is held constant
    in the backward pass. Printed is a floor; the quantizer that the paper cites (Jacob et al. 2018)
    rounds to the nearest, without which every layer's mean moves by half a step.

    Args:
        x: float tensor of any shape.
        step: float tensor of shape (), S, positive.
        rounding: `"nearest"` (half to even), `"floor"` (as printed) or `"stochastic"`.
        seed: int32 tensor of shape (2,), needed by stochastic rounding.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        UserError: on an unknown rounding, or stochastic rounding without a seed.
    """
    step = tf.stop_gradient(step)

    @tf.custom_gradient
    def quantize(values):
        return to_integer(values / step, rounding, seed) * step, lambda upstream: upstream

    return tf.cast(quantize(tf.cast(x, step.dtype)), x.dtype)


def linear_quantize(
    x: tf.Tensor, bits: tf.Tensor, rounding: str = "nearest", seed: tf.Tensor | None = None
) -> tf.Tensor:
    """Rounds a tensor to multiples of the step of its own range (Contrastive Quant, Eq. 9).

    Args:
        x: float tensor of any shape, weights or activations.
        bits: int32 tensor of shape ().
        rounding: as for `round_to_multiples`.
        seed: as for `round_to_multiples`.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        UserError: on an unknown rounding, or stochastic rounding without a seed.
        tf.errors.InvalidArgumentError: when `x` holds NaN or infinity.
    """
    values = tf.stop_gradient(tf.cast(x, arithmetic_dtype(x.dtype)))
    step = linear_step(tf.reduce_min(values), tf.reduce_max(values), bits)
    return round_to_multiples(x, step, rounding, seed)
