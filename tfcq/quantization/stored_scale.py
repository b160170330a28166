"""A weight quantizer whose scale was found once and is kept with the layer's weights."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.quantization import ops
from tfcq.quantization.learned import scale_dtype
from tfcq.quantization.quantizer import Quantizer
from tfcq.settings.bitwidths import check_bits


@keras.saving.register_keras_serializable("tfcq")
class StoredScaleWeightQuantizer(Quantizer):
    """Symmetric weight quantization with a scale that the layer keeps as a weight, `scale`.

        y = clip(round(w / scale), lowest, highest) * scale      levels: `ops.symmetric_levels`

    Post-training methods find the scale for one number of bits. Weights that lie on the grid
    already, such as AdaRound's, stay as they are.

    Args:
        bits: fixed bits, which every quantized pass uses for these weights; not None.
        per_channel: one scale per output channel, or one for the tensor.
        narrow_range: leave out the most negative level.

    Raises:
        UserError: when bits are None or outside 2 to 16.
    """

    def __init__(self, bits: int, per_channel: bool = True, narrow_range: bool = False) -> None:
        check_bits(bits)
        super().__init__(bits)
        self.per_channel = per_channel
        self.narrow_range = narrow_range

    def build(
        self, layer: keras.layers.Layer, shape: tuple[int, ...], axes: list[int]
    ) -> keras.Variable:
        """Adds `scale` to a layer and returns it; it broadcasts against the weights.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the weights.
            axes: the axes that one output channel spans.
        """
        row = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        return layer.add_weight(
            name="scale",
            shape=row if self.per_channel else (),
            # Not finite, so that a scale that was never set is told of.
            initializer=keras.initializers.Constant(np.nan),
            dtype=scale_dtype(layer),
            trainable=False,
            autocast=False,
        )

    def levels(self, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the lowest and the highest level, each of shape ().

        Args:
            dtype: dtype of the result.
        """
        return ops.symmetric_levels(self.bits, self.narrow_range, dtype)

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
            bits: not used: the scale is for the quantizer's own.
            axes: not used: the scale has its shape.
            seed: not used: rounding is to the nearest.
            learned: the scale, from `build`.

        Raises:
            tf.errors.InvalidArgumentError: when the scale was never set.
        """
        scale = tf.debugging.check_numerics(
            tf.convert_to_tensor(learned), f"{ops.NOT_FINITE} in a stored scale, or none was set"
        )
        lowest, highest = self.levels(scale.dtype)
        return ops.fake_quantize(weights, scale, tf.zeros((), scale.dtype), lowest, highest)


def stored_scale(layer: keras.layers.Layer) -> keras.Variable:
    """Returns the stored scale of a layer.

    Args:
        layer: a layer with a kernel.

    Raises:
        UserError: when it keeps none.
    """
    if not isinstance(getattr(layer, "weight_quantizer", None), StoredScaleWeightQuantizer):
        raise UserError(
            f"Layer {layer.name!r} keeps no scale; allowed: layers of a model that "
            "tfcq.post_training.weights.with_stored_scales made."
        )
    return layer.learned_scale
