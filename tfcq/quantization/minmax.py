"""Scales from the largest magnitude, or from minimum and maximum: SSQL's, and int8 runtimes'."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.quantization import ops
from tfcq.quantization.quantizer import Quantizer, Request


@keras.saving.register_keras_serializable("tfcq")
class MinMaxWeightQuantizer(Quantizer):
    """Symmetric weight quantization over the weights' own largest magnitude.

    The default is the arithmetic of SSQL's authors: per output channel, full range, scale
    max|w| / ((2^bits - 1) / 2), and the gradient also flows through max|w|.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
        per_channel: one scale per output channel, or one for the tensor.
        narrow_range: leave out the most negative level, as int8 runtimes do for weights.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold the scale constant in the backward pass.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(
        self,
        bits: int | None = None,
        per_channel: bool = True,
        narrow_range: bool = False,
        rounding: str = "nearest",
        detach_scale: bool = False,
    ) -> None:
        super().__init__(bits)
        self.per_channel = per_channel
        self.narrow_range = narrow_range
        self.rounding = ops.checked_rounding(rounding)
        self.detach_scale = detach_scale

    def scale(
        self, tensor: tf.Tensor, bits: Any, axes: list[int] | None, learned: Any
    ) -> tf.Tensor:
        """Returns the scale of its largest magnitude, of a shape that broadcasts.

        Args:
            tensor: float tensor.
            bits: int or int32 tensor of shape (), the bits of the pass.
            axes: the axes that one output channel spans.
            learned: unused.
        """
        shared = self._shared_axes(axes)
        scale = ops.symmetric_scale(tensor, self.chosen_bits(bits), shared, self.narrow_range)
        return tf.stop_gradient(scale) if self.detach_scale else scale

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor on the grid of its largest magnitude.

        Args:
            tensor: float tensor.
            request: how.
        """
        scale = self.scale(tensor, request.bits, request.axes, request.learned)
        levels = ops.symmetric_levels(request.bits, self.narrow_range, scale.dtype)
        zero_point = tf.zeros((), scale.dtype)
        return ops.fake_quantize(tensor, scale, zero_point, *levels, self.rounding, request.seed)


class _Asymmetric(Quantizer):
    """A tensor over a range with a zero point, the given one or its own.

    Args:
        bits: fixed bits, or None to take those of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold scale and zero point constant in the backward pass.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(
        self, bits: int | None = None, rounding: str = "nearest", detach_scale: bool = False
    ) -> None:
        super().__init__(bits)
        self.rounding = ops.checked_rounding(rounding)
        self.detach_scale = detach_scale

    def parameters(
        self, bits: Any, minimum: tf.Tensor, maximum: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns scale, zero point and highest level for a range, each of shape ().

        Args:
            bits: int or int32 tensor of shape (), the bits of the pass.
            minimum: float tensor of shape (), lower end of the range.
            maximum: float tensor of shape (), upper end of the range.
        """
        if self.detach_scale:
            minimum, maximum = tf.stop_gradient(minimum), tf.stop_gradient(maximum)
        return ops.asymmetric_scale(minimum, maximum, self.chosen_bits(bits))

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor on the grid of the range.

        Args:
            tensor: float tensor.
            request: how.
        """
        ends = request.ends or ops.range_of(tensor)
        scale, zero_point, top = self.parameters(request.bits, *ends)
        lowest = tf.zeros((), top.dtype)
        return ops.fake_quantize(
            tensor, scale, zero_point, lowest, top, self.rounding, request.seed
        )


@keras.saving.register_keras_serializable("tfcq")
class AsymmetricWeightQuantizer(_Asymmetric):
    """Weight quantization over the tensor's own minimum and maximum, as SSQL prints it.

        S = (max - min) / (2^bits - 1)    Z = -round(min / S)
        y = (clip(round(w / S) + Z, 0, 2^bits - 1) - Z) S

    (SSQL, Eqs. 2 to 5.) The authors' code quantizes weights as `MinMaxWeightQuantizer` does.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold scale and zero point constant in the backward pass.
    """


@keras.saving.register_keras_serializable("tfcq")
class MinMaxActivationQuantizer(_Asymmetric):
    """Asymmetric per-tensor activation quantization over a given range.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold the scale and zero point constant in the backward pass; matters only
            where the range comes from the tensor itself, recorded ranges carry no gradient.
    """

    takes_range = True

    def __init__(
        self, bits: int | None = None, rounding: str = "nearest", detach_scale: bool = True
    ) -> None:
        super().__init__(bits, rounding, detach_scale)
