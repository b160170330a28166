"""Serializable quantizers: the hyper-parameters of the pure functions in `ops`."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import unknown_choice
from tfcq.quantization import ops
from tfcq.quantization.bitwidths import check_bits


def _checked_rounding(rounding: str) -> str:
    if rounding not in ops.ROUNDINGS:
        raise unknown_choice("rounding", rounding, ops.ROUNDINGS)
    return rounding


@keras.saving.register_keras_serializable("tfcq")
class MinMaxWeightQuantizer:
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
        if bits is not None:
            check_bits(bits)
        self.bits = bits
        self.per_channel = per_channel
        self.narrow_range = narrow_range
        self.rounding = _checked_rounding(rounding)
        self.detach_scale = detach_scale

    def __call__(
        self, weights: tf.Tensor, bits: Any, axes: list[int], seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: the axes that one output channel spans.
            seed: int32 tensor of shape (2,), for stochastic rounding.
        """
        bits = bits if self.bits is None else self.bits
        scale = ops.symmetric_scale(
            weights, bits, axes if self.per_channel else None, self.narrow_range
        )
        if self.detach_scale:
            scale = tf.stop_gradient(scale)
        lowest, highest = ops.symmetric_levels(bits, self.narrow_range, scale.dtype)
        zero_point = tf.zeros((), scale.dtype)
        return ops.fake_quantize(weights, scale, zero_point, lowest, highest, self.rounding, seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "bits": self.bits,
            "per_channel": self.per_channel,
            "narrow_range": self.narrow_range,
            "rounding": self.rounding,
            "detach_scale": self.detach_scale,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MinMaxWeightQuantizer":
        """Returns the quantizer that `get_config` described."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfcq")
class MinMaxActivationQuantizer:
    """Asymmetric per-tensor activation quantization over a given range.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold the scale and zero point constant in the backward pass; matters only
            where the range comes from the tensor itself, recorded ranges carry no gradient.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(
        self, bits: int | None = None, rounding: str = "nearest", detach_scale: bool = True
    ) -> None:
        if bits is not None:
            check_bits(bits)
        self.bits = bits
        self.rounding = _checked_rounding(rounding)
        self.detach_scale = detach_scale

    def parameters(
        self, bits: Any, minimum: tf.Tensor, maximum: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns scale, zero point and highest level for a range, each of shape ().

        Args:
            bits: int or int32 tensor of shape (), this pass's activation bits.
            minimum: float tensor of shape (), lower end of the range.
            maximum: float tensor of shape (), upper end of the range.
        """
        bits = bits if self.bits is None else self.bits
        if self.detach_scale:
            minimum, maximum = tf.stop_gradient(minimum), tf.stop_gradient(maximum)
        return ops.asymmetric_scale(minimum, maximum, bits)

    def __call__(
        self,
        inputs: tf.Tensor,
        parameters: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the activations as their quantized values.

        Args:
            inputs: float tensor.
            parameters: scale, zero point and highest level.
            seed: int32 tensor of shape (2,), for stochastic rounding.
        """
        scale, zero_point, top = parameters
        lowest = tf.zeros((), top.dtype)
        return ops.fake_quantize(inputs, scale, zero_point, lowest, top, self.rounding, seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"bits": self.bits, "rounding": self.rounding, "detach_scale": self.detach_scale}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MinMaxActivationQuantizer":
        """Returns the quantizer that `get_config` described."""
        return cls(**config)
