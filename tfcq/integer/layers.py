"""Layers that flat models are made of, besides Keras's own."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcq.nn.precision import TakesPrecision
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.precision import Observe, Precision, RecordRanges

_BITS = 8
# Of a grid of 8 bits whose lowest stands for zero.
HIGHEST_LEVEL = 255


@keras.saving.register_keras_serializable("tfcq")
def gelu_tanh(x: Any) -> Any:
    """Returns GELU as its approximation by a hyperbolic tangent.

    Args:
        x: float tensor.
    """
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("tfcq")
class ChannelAffine(keras.layers.Layer):
    """Multiplies by and adds a number for each channel, the last axis.

    Args:
        **kwargs: as for `keras.layers.Layer`.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `factor` and `shift`.

        Args:
            input_shape: shape of the inputs.
        """
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        """Returns `inputs * factor + shift`."""
        return inputs * self.factor + self.shift


@keras.saving.register_keras_serializable("tfcq")
class Slices(keras.layers.Layer):
    """Takes every so many values between two bounds along each axis behind the batch.

    Args:
        bounds: start, end and step of each axis, as a slice has them.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, bounds: list[tuple[int | None, int | None, int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bounds = [tuple(one) for one in bounds]

    def slices(self) -> list[slice]:
        """Returns the slices, that of the batch among them."""
        return [slice(None), *(slice(*one) for one in self.bounds)]

    def call(self, inputs: Any) -> Any:
        """Returns the values."""
        return inputs[tuple(self.slices())]

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration."""
        return {**super().get_config(), "bounds": self.bounds}


@keras.saving.register_keras_serializable("tfcq")
class MeanOfChannels(keras.layers.Layer):
    """Means along the last axis, which stays with one value.

    Args:
        **kwargs: as for `keras.layers.Layer`.
    """

    def call(self, inputs: Any) -> Any:
        """Returns the means, float [..., 1]."""
        return ops.mean(inputs, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tfcq")
class MatrixProduct(keras.layers.Layer):
    """Products of the matrices in the last two axes of two tensors.

    Args:
        transposed: whether the second matrix is taken with rows and columns exchanged.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, transposed: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transposed = transposed

    def call(self, left: Any, right: Any) -> Any:
        """Returns the products.

        Args:
            left: float [..., rows, inner].
            right: float [..., inner, columns], or with the last two axes exchanged.
        """
        return ops.matmul(left, ops.swapaxes(right, -1, -2) if self.transposed else right)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration."""
        return {**super().get_config(), "transposed": self.transposed}


@keras.saving.register_keras_serializable("tfcq")
class Rsqrt(TakesPrecision, keras.layers.Layer):
    """One divided by the square roots of values that are never negative.

    In a quantized pass epsilon is a whole number of steps of the inputs, as integers add it, which
    is mostly none of them.

    Args:
        epsilon: added to the values.
        **kwargs: as for `keras.layers.Layer`.
    """

    # Gives the scale of the inputs in a pass; `link_grids` sets it.
    input_scale: Any = None

    def __init__(self, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.accept_precision()

    def call(self, inputs: Any, precision: Precision | RecordRanges | Observe | None = None) -> Any:
        """Returns `1 / sqrt(inputs + epsilon)`.

        Args:
            inputs: float tensor.
            precision: the pass.
        """
        precision = self.tell_outer(precision)
        values = inputs + self.epsilon
        if isinstance(precision, Precision) and self.input_scale is not None:
            scale = tf.cast(self.input_scale(precision), inputs.dtype)
            added = inputs + tf.round(self.epsilon / scale) * scale
            # Epsilon stands for a zero, for which integer kernels return the greatest level.
            values = tf.maximum(tf.minimum(added, HIGHEST_LEVEL * scale), self.epsilon or 1e-12)
        return ops.rsqrt(values)

    def steps(self, scale: float) -> int:
        """Returns the steps of the inputs that epsilon is.

        Args:
            scale: of the inputs.
        """
        return int(np.round(np.float32(self.epsilon) / np.float32(scale)))

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("tfcq")
class ConstantSum(TakesPrecision, keras.layers.Layer):
    """Adds numbers of its own, one for each value of an input, in 8 bits in a quantized pass.

    Args:
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._quantizer = MinMaxWeightQuantizer(_BITS, per_channel=False, narrow_range=True)
        self.accept_precision()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `constant`.

        Args:
            input_shape: shape of the inputs.
        """
        self.constant = self.add_weight(
            shape=tuple(input_shape[1:]), initializer="zeros", name="constant"
        )

    def call(self, inputs: Any, precision: Precision | RecordRanges | Observe | None = None) -> Any:
        """Returns `inputs + constant`.

        Args:
            inputs: float tensor.
            precision: the pass.
        """
        precision = self.tell_outer(precision)
        constant = tf.convert_to_tensor(self.constant)
        if isinstance(precision, Precision):
            constant = self._quantizer(constant, _BITS, list(range(len(constant.shape))))
        return inputs + constant

    def levels(self) -> tuple[np.ndarray, np.float32]:
        """Returns the constant as int8 and their scale."""
        constant = tf.convert_to_tensor(self.constant)
        axes = list(range(len(constant.shape)))
        scale = self._quantizer.scale(constant, _BITS, axes, None)
        levels = np.asarray(self._quantizer(constant, _BITS, axes) / scale)
        return np.round(levels).astype(np.int8), np.float32(np.asarray(scale).ravel()[0])
