"""Serializable quantizers whose scales are trained: LSQ and PACT."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.quantization.learned import (
    INITIAL_CLIPPING,
    add_step_sizes,
    clipped_quantize,
    initial_step_size,
    learned_step_quantize,
    scale_dtype,
    step_size_of,
)
from tfcq.quantization.quantizer import Quantizer, SignedQuantizer

# Names of the variables that these quantizers learn.
LEARNED_SCALES = ("step_size", "clipping")


@keras.saving.register_keras_serializable("tfcq")
class LSQWeightQuantizer(Quantizer):
    """Weights rounded to multiples of learned step sizes (`learned.learned_step_quantize`).

    The layer's weight `step_size` has one row for each number of bits from 2 to 16; a row starts
    at 2 mean|w| / sqrt(Qp) in the first pass that uses it, and again should a step size have been
    trained to zero or below.

    Args:
        bits: fixed bits, or None to take the weight bits of the pass.
        per_channel: one step size per output channel, or one for the tensor.
    """

    learns_scale = True

    def __init__(self, bits: int | None = None, per_channel: bool = True) -> None:
        super().__init__(bits)
        self.per_channel = per_channel

    def build(
        self, layer: keras.layers.Layer, shape: tuple[int, ...], axes: list[int]
    ) -> keras.Variable:
        """Adds `step_size` to a layer and returns it; a row broadcasts against the weights.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the weights.
            axes: the axes that one output channel spans.
        """
        row = [1 if axis in axes else size for axis, size in enumerate(shape)]
        return add_step_sizes(layer, tuple(row) if self.per_channel else ())

    def __call__(
        self,
        weights: tf.Tensor,
        bits: Any,
        axes: list[int],
        seed: tf.Tensor | None = None,
        *,
        learned: keras.Variable,
    ) -> tf.Tensor:
        """Returns the weights as their quantized values.

        Args:
            weights: float tensor.
            bits: int or int32 tensor of shape (), this pass's weight bits.
            axes: the axes that one output channel spans.
            seed: not used: rounding is to the nearest.
            learned: the step sizes, from `build`.
        """
        bits = self.chosen_bits(bits)
        initial = initial_step_size(weights, bits, axes if self.per_channel else None, True)
        return learned_step_quantize(weights, step_size_of(learned, bits, initial), bits, True)


@keras.saving.register_keras_serializable("tfcq")
class LSQActivationQuantizer(SignedQuantizer):
    """Activations rounded to multiples of a learned step size, one per tensor.

    The layer's weight `step_size` has one entry for each number of bits from 2 to 16, which starts
    as those of `LSQWeightQuantizer` do, from the first batch.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """

    learns_scale = True

    def build(
        self, layer: keras.layers.Layer, shape: tuple[int | None, ...], axes: None = None
    ) -> keras.Variable:
        """Adds `step_size` to a layer and returns it.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the activations.
            axes: not used: activations have one step size per tensor.
        """
        return add_step_sizes(layer, ())

    def __call__(
        self,
        inputs: tf.Tensor,
        bits: Any,
        axes: None = None,
        seed: tf.Tensor | None = None,
        *,
        learned: keras.Variable,
    ) -> tf.Tensor:
        """Returns the activations as their quantized values.

        Args:
            inputs: float tensor.
            bits: int or int32 tensor of shape (), this pass's activation bits.
            axes: not used: activations have one step size per tensor.
            seed: not used: rounding is to the nearest.
            learned: the step sizes, from `build`.
        """
        bits = self.chosen_bits(bits)
        initial = initial_step_size(inputs, bits, None, self.signed)
        step_size = step_size_of(learned, bits, initial)
        return learned_step_quantize(inputs, step_size, bits, self.signed)


@keras.saving.register_keras_serializable("tfcq")
class PACTQuantizer(SignedQuantizer):
    """Activations clipped at a learned value (`learned.clipped_quantize`), which starts at 10.

    The layer's weight `clipping`, of shape (), serves all bits. The paper's l2 penalty on it comes
    from the optimizer.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        signed: whether activations can be negative.
    """

    learns_scale = True

    def build(
        self, layer: keras.layers.Layer, shape: tuple[int | None, ...], axes: None = None
    ) -> keras.Variable:
        """Adds `clipping` to a layer and returns it.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the activations.
            axes: not used: activations have one scale per tensor.
        """
        return layer.add_weight(
            name="clipping",
            shape=(),
            initializer=keras.initializers.Constant(INITIAL_CLIPPING),
            dtype=scale_dtype(layer),
            autocast=False,
        )

    def __call__(
        self,
        inputs: tf.Tensor,
        bits: Any,
        axes: None = None,
        seed: tf.Tensor | None = None,
        *,
        learned: keras.Variable,
    ) -> tf.Tensor:
        """Returns the activations as their quantized values.

        Args:
            inputs: float tensor.
            bits: int or int32 tensor of shape (), this pass's activation bits.
            axes: not used: activations have one scale per tensor.
            seed: not used: rounding is to the nearest.
            learned: the clipping, from `build`.
        """
        clipping = tf.convert_to_tensor(learned)
        return clipped_quantize(inputs, clipping, self.chosen_bits(bits), self.signed)
