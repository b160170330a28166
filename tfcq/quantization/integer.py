"""Activations on the grids that int8 runtimes store them on: a zero among 256 levels."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.quantization.minmax import MinMaxActivationQuantizer


@keras.saving.register_keras_serializable("tfcq")
class IntegerActivationQuantizer(MinMaxActivationQuantizer):
    """Asymmetric per-tensor quantization over a range that is widened to hold zero.

    Args:
        bits: fixed bits, or None to take the activation bits of the pass.
        lowest: lower end of a range that is known, as of images; None for the recorded one.
        highest: upper end of that range.
        centred: whether zero is the middle level, as of the second factor of a product.
        ratio: how often the range's upper end holds its lower one at most, where both are above
            zero; None for no limit.
    """

    def __init__(
        self,
        bits: int | None = None,
        lowest: float | None = None,
        highest: float | None = None,
        centred: bool = False,
        ratio: float | None = None,
    ) -> None:
        super().__init__(bits)
        self.lowest, self.highest = lowest, highest
        self.centred, self.ratio = centred, ratio
        self.takes_range = lowest is None

    def parameters(
        self, bits: Any, minimum: tf.Tensor, maximum: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns scale, zero point and highest level for a range, each of shape ().

        Args:
            bits: int or int32 tensor of shape (), the bits of the pass.
            minimum: float tensor of shape (), lower end of the range.
            maximum: float tensor of shape (), upper end of the range.
        """
        if self.lowest is not None:
            minimum, maximum = (tf.constant(v, minimum.dtype) for v in (self.lowest, self.highest))
        zero = tf.zeros((), minimum.dtype)
        if self.ratio is not None:
            maximum = tf.minimum(maximum, minimum * self.ratio)
        if self.centred:
            maximum = tf.maximum(tf.abs(minimum), tf.abs(maximum))
            levels = tf.pow(2.0, tf.cast(self.chosen_bits(bits) - 1, minimum.dtype))
            minimum = -maximum * levels / (levels - 1)
        return super().parameters(bits, tf.minimum(minimum, zero), tf.maximum(maximum, zero))
