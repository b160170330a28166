"""Serializable quantizers: the hyper-parameters of pure functions; and every kind by its name."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import unknown_choice
from tfcq.quantization import ops
from tfcq.quantization.dorefa import dorefa_weights
from tfcq.quantization.learned import clipped_quantize
from tfcq.quantization.learned_quantizers import (
    LSQActivationQuantizer,
    LSQWeightQuantizer,
    PACTQuantizer,
)
from tfcq.quantization.linear import linear_quantize, linear_step, round_to_multiples
from tfcq.quantization.quantizer import Quantizer, SignedQuantizer


def _checked_rounding(rounding: str) -> str:
    if rounding not in ops.ROUNDINGS:
        raise unknown_choice("rounding", rounding, ops.ROUNDINGS)
    return rounding


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
        self.rounding = _checked_rounding(rounding)
        self.detach_scale = detach_scale

    def __call__(
        self,
        weights: tf.Tensor,
        bits: Any,
        axes: list[int],
        seed: tf.Tensor | None = None,
        learned: None = None,
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: the axes that one output channel spans.
            seed: int32 tensor of shape (2,), for stochastic rounding.
            learned: None, from `build`.
        """
        bits = self.chosen_bits(bits)
        scale = ops.symmetric_scale(
            weights, bits, axes if self.per_channel else None, self.narrow_range
        )
        if self.detach_scale:
            scale = tf.stop_gradient(scale)
        lowest, highest = ops.symmetric_levels(bits, self.narrow_range, scale.dtype)
        zero_point = tf.zeros((), scale.dtype)
        return ops.fake_quantize(weights, scale, zero_point, lowest, highest, self.rounding, seed)


@keras.saving.register_keras_serializable("tfcq")
class AsymmetricWeightQuantizer(Quantizer):
    """Weight quantization over the tensor's own minimum and maximum, as SSQL prints it.

        S = (max - min) / (2^bits - 1)    Z = -round(min / S)
        y = (clip(round(w / S) + Z, 0, 2^bits - 1) - Z) S

    (SSQL, Eqs. 2 to 5.) The authors' code quantizes weights as `MinMaxWeightQuantizer` does.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold scale and zero point constant in the backward pass.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(
        self, bits: int | None = None, rounding: str = "nearest", detach_scale: bool = False
    ) -> None:
        super().__init__(bits)
        self.rounding = _checked_rounding(rounding)
        self.detach_scale = detach_scale

    def __call__(
        self,
        weights: tf.Tensor,
        bits: Any,
        axes: list[int] | None = None,
        seed: tf.Tensor | None = None,
        learned: None = None,
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: not used: one scale serves the whole tensor.
            seed: int32 tensor of shape (2,), for stochastic rounding.
            learned: None, from `build`.
        """
        source = tf.stop_gradient(weights) if self.detach_scale else weights
        scale, zero_point, top = ops.asymmetric_scale(
            tf.reduce_min(source), tf.reduce_max(source), self.chosen_bits(bits)
        )
        lowest = tf.zeros((), top.dtype)
        return ops.fake_quantize(weights, scale, zero_point, lowest, top, self.rounding, seed)


@keras.saving.register_keras_serializable("tfcq")
class MinMaxActivationQuantizer(Quantizer):
    """Asymmetric per-tensor activation quantization over a given range.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`.
        detach_scale: hold the scale and zero point constant in the backward pass; matters only
            where the range comes from the tensor itself, recorded ranges carry no gradient.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    takes_range = True

    def __init__(
        self, bits: int | None = None, rounding: str = "nearest", detach_scale: bool = True
    ) -> None:
        super().__init__(bits)
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
        if self.detach_scale:
            minimum, maximum = tf.stop_gradient(minimum), tf.stop_gradient(maximum)
        return ops.asymmetric_scale(minimum, maximum, self.chosen_bits(bits))

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


@keras.saving.register_keras_serializable("tfcq")
class LinearWeightQuantizer(Quantizer):
    """Weights as multiples of a step from their own range (`linear.linear_quantize`), per tensor.

    What Contrastive Quant uses (Eq. 9).

    Args:
        bits: fixed bits, or None to take those of the pass.
        rounding: `"nearest"`, `"floor"` (as printed) or `"stochastic"`.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    def __init__(self, bits: int | None = None, rounding: str = "nearest") -> None:
        super().__init__(bits)
        self.rounding = _checked_rounding(rounding)

    def __call__(
        self,
        weights: tf.Tensor,
        bits: Any,
        axes: list[int] | None = None,
        seed: tf.Tensor | None = None,
        learned: None = None,
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: not used: one step serves the whole tensor.
            seed: int32 tensor of shape (2,), for stochastic rounding.
            learned: None, from `build`.
        """
        return linear_quantize(weights, self.chosen_bits(bits), self.rounding, seed)


@keras.saving.register_keras_serializable("tfcq")
class LinearActivationQuantizer(Quantizer):
    """Activations as multiples of a step from a given range (`linear.round_to_multiples`).

    What Contrastive Quant uses (Eq. 9). Values beyond a recorded range are not clipped.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        rounding: `"nearest"`, `"floor"` (as printed) or `"stochastic"`.

    Raises:
        UserError: on an unknown rounding, or bits outside 2 to 16.
    """

    takes_range = True

    def __init__(self, bits: int | None = None, rounding: str = "nearest") -> None:
        super().__init__(bits)
        self.rounding = _checked_rounding(rounding)

    def parameters(self, bits: Any, minimum: tf.Tensor, maximum: tf.Tensor) -> tf.Tensor:
        """Returns the step for a range, of shape ().

        Args:
            bits: int or int32 tensor of shape (), this pass's activation bits.
            minimum: float tensor of shape (), lower end of the range.
            maximum: float tensor of shape (), upper end of the range.
        """
        return linear_step(minimum, maximum, self.chosen_bits(bits))

    def __call__(
        self, inputs: tf.Tensor, parameters: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the activations as their quantized values.

        Args:
            inputs: float tensor.
            parameters: the step.
            seed: int32 tensor of shape (2,), for stochastic rounding.
        """
        return round_to_multiples(inputs, parameters, self.rounding, seed)


@keras.saving.register_keras_serializable("tfcq")
class DoReFaWeightQuantizer(Quantizer):
    """DoReFa-Net's weights in [-1, 1] (`dorefa.dorefa_weights`), per tensor.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
    """

    def __call__(
        self,
        weights: tf.Tensor,
        bits: Any,
        axes: list[int] | None = None,
        seed: tf.Tensor | None = None,
        learned: None = None,
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: not used: one maximum serves the whole tensor.
            seed: not used: rounding is to the nearest.
            learned: None, from `build`.
        """
        return dorefa_weights(weights, self.chosen_bits(bits))


@keras.saving.register_keras_serializable("tfcq")
class DoReFaActivationQuantizer(SignedQuantizer):
    """DoReFa-Net's activations: clipped to [0, 1] and rounded to 2^bits evenly spaced values.

    The arithmetic is `learned.clipped_quantize` at a clipping of 1. Signed tensors, of which the
    paper has none, are clipped to [-1, 1] instead of losing their negative half.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """

    def __call__(
        self,
        inputs: tf.Tensor,
        bits: Any,
        axes: None = None,
        seed: tf.Tensor | None = None,
        learned: None = None,
    ) -> tf.Tensor:
        """Returns the activations as their quantized values.

        Args:
            inputs: float tensor.
            bits: int or int32 tensor of shape (), this pass's activation bits.
            axes: not used: activations have one scale per tensor.
            seed: not used: rounding is to the nearest.
            learned: None, from `build`.
        """
        one = tf.ones((), ops.arithmetic_dtype(inputs.dtype))
        return clipped_quantize(inputs, one, self.chosen_bits(bits), self.signed)


# Their names stand in `tfcq.settings.policies` too, which needs no TensorFlow.
WEIGHT_QUANTIZERS: dict[str, type[Quantizer]] = {
    "minmax": MinMaxWeightQuantizer,
    "asymmetric": AsymmetricWeightQuantizer,
    "linear": LinearWeightQuantizer,
    "lsq": LSQWeightQuantizer,
    "dorefa": DoReFaWeightQuantizer,
}
ACTIVATION_QUANTIZERS: dict[str, type[Quantizer]] = {
    "minmax": MinMaxActivationQuantizer,
    "linear": LinearActivationQuantizer,
    "lsq": LSQActivationQuantizer,
    "pact": PACTQuantizer,
    "dorefa": DoReFaActivationQuantizer,
}
