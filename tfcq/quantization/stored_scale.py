"""A weight quantizer whose scale was found once and is kept with the layer's weights."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.quantization import ops
from tfcq.quantization.quantizer import Quantizer, Request
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

    def scale_weight(self, shape: tuple[int | None, ...]) -> dict[str, Any]:
        """Returns `scale`.

        Args:
            shape: its shape.
        """
        # Not finite, so that a scale that was never set is told of.
        unset = keras.initializers.Constant(np.nan)
        return {"name": "scale", "shape": shape, "initializer": unset, "trainable": False}

    def scale(
        self, tensor: tf.Tensor, bits: Any, axes: list[int] | None, learned: Any
    ) -> tf.Tensor:
        """Returns the stored scale.

        Args:
            tensor: unused.
            bits: unused.
            axes: unused.
            learned: what `build` returned.
        """
        return tf.convert_to_tensor(learned)

    def levels(self, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the lowest and the highest level, each of shape ().

        Args:
            dtype: dtype of the result.
        """
        return ops.symmetric_levels(self.bits, self.narrow_range, dtype)

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns the tensor on the grid of the stored scale.

        Args:
            tensor: float tensor.
            request: how.

        Raises:
            tf.errors.InvalidArgumentError: when the scale was never set.
        """
        scale = tf.debugging.check_numerics(
            tf.convert_to_tensor(request.learned),
            f"{ops.NOT_FINITE} in a stored scale, or none was set",
        )
        zero_point = tf.zeros((), scale.dtype)
        return ops.fake_quantize(tensor, scale, zero_point, *self.levels(scale.dtype))


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
