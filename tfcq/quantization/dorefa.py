"""DoReFa-Net: weights squeezed into [-1, 1], activations clipped to [0, 1], both in even steps."""

import keras
import tensorflow as tf

from tfcq.quantization.ops import (
    arithmetic_dtype,
    checked,
    integer_levels,
    largest_magnitude,
    smallest_normal,
    straight_through_round,
)
from tfcq.quantization.pact import clipped_quantize
from tfcq.quantization.quantizer import Quantizer, Request, SignedQuantizer


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


@keras.saving.register_keras_serializable("tfcq")
class DoReFaWeightQuantizer(Quantizer):
    """DoReFa-Net's weights in [-1, 1] (`dorefa.dorefa_weights`), per tensor.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
    """

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor squeezed and rounded.

        Args:
            tensor: float tensor.
            request: how.
        """
        return dorefa_weights(tensor, request.bits)


@keras.saving.register_keras_serializable("tfcq")
class DoReFaActivationQuantizer(SignedQuantizer):
    """DoReFa-Net's activations: clipped to [0, 1] and rounded to 2^bits evenly spaced values.

    The arithmetic is `pact.clipped_quantize` at a clipping of 1. Signed tensors, of which the
    paper has none, are clipped to [-1, 1] instead of losing their negative half.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor clipped and rounded.

        Args:
            tensor: float tensor.
            request: how.
        """
        one = tf.ones((), arithmetic_dtype(tensor.dtype))
        return clipped_quantize(tensor, one, request.bits, self.signed)
