"""Keras layers whose weights are quantized when, and only when, the call names a precision."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.nn import filter_gradient
from tfcq.nn.precision import TakesPrecision
from tfcq.quantization.fused import accelerated
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.ops import straight_through_round
from tfcq.quantization.precision import Observe, Precision, RecordRanges, check_pass
from tfcq.settings.training_groups import FLOAT16, FLOAT32

# Stands before the float layer that it completes; checkers take that for anything.
_BeforeFloatLayer: Any = object


class QuantizedKernel(TakesPrecision, _BeforeFloatLayer):
    """What the three layers share: a weight quantizer applied to `kernel` in quantized passes."""

    # Axes of the kernel that one output channel spans.
    kernel_axes: list[int]
    # What the weight quantizer trains, such as step sizes; a weight of the layer behind its own.
    learned_scale: keras.Variable | None = None
    # In which inputs and kernel are multiplied; None for that of the layer. `multiply_in` sets it.
    product_dtype: str | None = None
    # Gives the scale of the inputs in a pass; `link_grids` sets it where biases are integers.
    input_scale: Any = None

    def __init__(
        self, *args: Any, weight_quantizer: Any = None, integer_bias: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.integer_bias = integer_bias
        if isinstance(weight_quantizer, dict):
            weight_quantizer = keras.saving.deserialize_keras_object(weight_quantizer)
        self.weight_quantizer = weight_quantizer or MinMaxWeightQuantizer()
        self.accept_precision()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the float layer's weights, then what the weight quantizer learns.

        Args:
            input_shape: shape of the inputs.
        """
        super().build(input_shape)
        self.learned_scale = self.weight_quantizer.build(
            self, tuple(self.kernel.shape), self.kernel_axes
        )

    def call(self, inputs: tf.Tensor, precision: Precision | RecordRanges | Observe | None = None):
        """Returns the layer's output, from float weights unless `precision` is a `Precision`.

        Args:
            inputs: float tensor as the float layer takes it.
            precision: the pass.
        """
        precision = self.tell_outer(precision)
        check_pass(precision)
        if not isinstance(precision, Precision):
            if self.product_dtype is None:
                return super().call(inputs)
            return self._activated(inputs, self._computed_kernel(), self.bias)
        kernel = precision.once(self, lambda: self.quantized_kernel(precision))
        bias = self.bias
        if bias is not None and self.input_scale is not None and precision.ranges == "recorded":
            bias = precision.once((self, "bias"), lambda: self.rounded_bias(precision)[0])
        return self._activated(inputs, kernel, bias)

    def _activated(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: Any) -> tf.Tensor:
        outputs = self._product(inputs, kernel)
        if bias is not None:
            if getattr(self, "data_format", "channels_last") == "channels_first":
                bias = keras.ops.reshape(bias, (1, -1) + (1,) * (outputs.shape.rank - 2))
            outputs = keras.ops.add(outputs, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.product_dtype is None:
            return self.apply_kernel(inputs, kernel)
        dtype = self.product_dtype
        # GPUs multiply factors of float16 and add in float32. TensorFlow's float16 takes processors
        # six times as long as that, and rounds within the sums of filter gradients.
        multiplied = FLOAT32 if dtype == FLOAT16 and not accelerated() else dtype
        factors = (tf.cast(tf.cast(factor, dtype), multiplied) for factor in (inputs, kernel))
        return tf.cast(tf.cast(self.apply_kernel(*factors), dtype), self.compute_dtype)

    def rounded_bias(self, precision: Precision) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the bias as integer runtimes add it, and the scales of its levels, [channels].

            round(bias / scale) * scale      scale = scale of inputs * scale of weights

        Args:
            precision: the pass.
        """
        weights = self.weight_quantizer.scale(
            self._computed_kernel(), precision.weight_bits, self.kernel_axes, self.learned_scale
        )
        scale = tf.reshape(weights, [-1]) * self.input_scale(precision)
        bias = tf.cast(tf.reshape(self.bias, [-1]), scale.dtype)
        rounded = straight_through_round(bias / scale) * scale
        return tf.cast(tf.reshape(rounded, tf.shape(self.bias)), self.compute_dtype), scale

    def quantized_kernel(self, precision: Precision) -> tf.Tensor:
        """Returns the kernel as a quantized pass uses it.

        Args:
            precision: the pass.
        """
        return self.weight_quantizer(
            self._computed_kernel(),
            precision.weight_bits,
            self.kernel_axes,
            precision.seed_for(self, self.weight_quantizer),
            self.learned_scale,
        )

    def _computed_kernel(self) -> tf.Tensor:
        # Keras rounds to the compute dtype by itself inside a layer's call alone.
        return tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)

    # Keras's convolutions and dense layer save kernel and bias only. Its base class saves all
    # weights in order, which is the same where a quantizer learns nothing.

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Writes all weights of the layer, as Keras asks for.

        Args:
            store: what they are written to.
        """
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Reads all weights of the layer, as Keras asks for.

        Args:
            store: what they are read from.
        """
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        """Returns the float layer's configuration and the weight quantizer's."""
        quantizer = keras.saving.serialize_keras_object(self.weight_quantizer)
        config = {**super().get_config(), "weight_quantizer": quantizer}
        return {**config, "integer_bias": True} if self.integer_bias else config


@keras.saving.register_keras_serializable("tfcq")
class QuantizedConv2D(QuantizedKernel, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with quantized weights in quantized passes.

    Args:
        weight_quantizer: quantizer of the kernel; one scale per filter by default.
        *args: as for `keras.layers.Conv2D`.
        **kwargs: as for `keras.layers.Conv2D`.
    """

    kernel_axes = [0, 1, 2]

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution of inputs and kernel, as Keras asks for.

        Args:
            inputs: float tensor as the float layer takes it.
            kernel: float tensor [height, width, inputs, outputs].
        """
        if self._reads_few_pixels(inputs):
            rows, columns = self.strides
            return keras.ops.conv(inputs[:, ::rows, ::columns], kernel)
        if filter_gradient.pays(self, inputs):
            return filter_gradient.convolve(self, inputs, kernel)
        return super().convolution_op(inputs, kernel)

    def _reads_few_pixels(self, inputs: tf.Tensor) -> bool:
        """Whether a strided 1 x 1 kernel is given the pixels that it reads alone.

        oneDNN's filter gradient of fewer than 16 channels writes beyond its memory where it strides
        (TensorFlow 2.21, AVX-512).
        """
        strided = self.kernel_size == (1, 1) and self.strides != (1, 1)
        plain = self.groups == 1 and self.data_format == "channels_last"
        return strided and plain and inputs.shape[-1] < 16

    def apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution of inputs and kernel, without bias and activation."""
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable("tfcq")
class QuantizedDepthwiseConv2D(QuantizedKernel, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with quantized weights in quantized passes.

    Args:
        weight_quantizer: quantizer of the kernel; one scale per output channel by default.
        *args: as for `keras.layers.DepthwiseConv2D`.
        **kwargs: as for `keras.layers.DepthwiseConv2D`.
    """

    kernel_axes = [0, 1]

    def apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution of inputs and kernel, without bias and activation."""
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


@keras.saving.register_keras_serializable("tfcq")
class QuantizedDense(QuantizedKernel, keras.layers.Dense):
    """`keras.layers.Dense` with quantized weights in quantized passes.

    Args:
        weight_quantizer: quantizer of the kernel; one scale per unit by default.
        *args: as for `keras.layers.Dense`.
        **kwargs: as for `keras.layers.Dense`.
    """

    kernel_axes = [0]

    def apply_kernel(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the product of inputs and kernel, without bias and activation."""
        return keras.ops.matmul(inputs, kernel)


QUANTIZED_COUNTERPARTS = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Dense: QuantizedDense,
}
FLOAT_COUNTERPARTS = {quantized: plain for plain, quantized in QUANTIZED_COUNTERPARTS.items()}
