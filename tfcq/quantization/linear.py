"""Contrastive Quant's linear quantizer (Eq. 9): multiples of a step, nothing clipped."""

import keras
import tensorflow as tf

from tfcq.quantization.ops import (
    checked_rounding,
    integer_levels,
    range_of,
    scale_of_range,
    to_integer,
)
from tfcq.quantization.quantizer import Quantizer, Request


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


class _Linear(Quantizer):
    """A tensor as multiples of the step of a range, the given one or its own.

    Args:
        bits: fixed bits, or None to take those of the pass.
        rounding: `"nearest"`, `"floor"` (as printed) or `"stochastic"`.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(self, bits: int | None = None, rounding: str = "nearest") -> None:
        super().__init__(bits)
        self.rounding = checked_rounding(rounding)

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor as multiples of the step.

        Args:
            tensor: float tensor.
            request: how.
        """
        step = linear_step(*(request.ends or range_of(tensor)), request.bits)
        return round_to_multiples(tensor, step, self.rounding, request.seed)


@keras.saving.register_keras_serializable("tfcq")
class LinearWeightQuantizer(_Linear):
    """Weights as multiples of a step from their own range (`linear.round_to_multiples`).

    What Contrastive Quant uses (Eq. 9), per tensor.

    Args:
        bits: fixed bits, or None to take those of the pass.
        rounding: `"nearest"`, `"floor"` (as printed) or `"stochastic"`.
    """


@keras.saving.register_keras_serializable("tfcq")
class LinearActivationQuantizer(_Linear):
    """Activations as multiples of a step from a given range (`linear.round_to_multiples`).

    What Contrastive Quant uses (Eq. 9). Values beyond a recorded range are not clipped.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        rounding: `"nearest"`, `"floor"` (as printed) or `"stochastic"`.
    """

    takes_range = True
