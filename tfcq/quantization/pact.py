"""PACT: activations clipped at a value that is learned, and rounded to even steps."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.quantization import fused
from tfcq.quantization.ops import (
    NOT_FINITE,
    arithmetic_dtype,
    checked,
    clip,
    integer_levels,
    smallest_normal,
)
from tfcq.quantization.quantizer import Request, SignedQuantizer

INITIAL_CLIPPING = 10.0


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

        def gradient(upstream):
            to_clipping = tf.reduce_sum(_above(values, upstream, upper))
            if signed:
                to_clipping -= tf.reduce_sum(_below(values, upstream, lower))
            return _inside(values, upstream, lower, upper), to_clipping

        return _rounded(values, lower, upper, scale), gradient

    values = checked(tf.cast(x, dtype), "activations to be quantized")
    clipping = tf.debugging.check_numerics(
        tf.cast(clipping, dtype), f"{NOT_FINITE} in a learned clipping"
    )
    return tf.cast(quantize(values, clipping), x.dtype)


# Sums are left to TensorFlow: compiled they take as long, and add in another order.
@fused.where_many(tensors=1, scalars=3)
def _rounded(x: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return tf.round(clip(x, lower, upper) / scale) * scale


@fused.where_many(tensors=2, scalars=2)
def _inside(x: tf.Tensor, gradient: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    return tf.where((x >= upper) | (x <= lower), tf.zeros((), x.dtype), gradient)


@fused.where_many(tensors=2, scalars=1)
def _above(x: tf.Tensor, gradient: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    return tf.where(x >= upper, gradient, tf.zeros((), x.dtype))


@fused.where_many(tensors=2, scalars=1)
def _below(x: tf.Tensor, gradient: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    return tf.where(x <= lower, gradient, tf.zeros((), x.dtype))


@keras.saving.register_keras_serializable("tfcq")
class PACTQuantizer(SignedQuantizer):
    """Activations clipped at a learned value (`pact.clipped_quantize`), which starts at 10.

    The layer's weight `clipping`, of shape (), serves all bits. The paper's l2 penalty on it comes
    from the optimizer.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """

    learns_scale = True

    def scale_weight(self, shape: tuple[int | None, ...]) -> dict[str, Any]:
        """Returns `clipping`.

        Args:
            shape: its shape, () for activations.
        """
        start = keras.initializers.Constant(INITIAL_CLIPPING)
        return {"name": "clipping", "shape": shape, "initializer": start}

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor clipped and rounded.

        Args:
            tensor: float tensor.
            request: how.
        """
        clipping = tf.convert_to_tensor(request.learned)
        return clipped_quantize(tensor, clipping, request.bits, self.signed)
