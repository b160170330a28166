"""From a quantizable model to TFLite files whose int8 grid is the one that was evaluated."""


import keras
import tensorflow as tf

from tfcq.deployment.ranges import Range
from tfcq.quantization import ops

_BITS = 8
_LEVELS = 2**_BITS - 1


def int8_kernel(layer):
    kernel = tf.convert_to_tensor(layer.kernel)
    quantizer = getattr(layer, "weight_quantizer", None)
    if quantizer is None:
        return kernel.numpy()
    bits = min(quantizer.bits or _BITS, _BITS)
    axes = layer.kernel_axes if quantizer.per_channel else None
    scale = ops.symmetric_scale(kernel, bits, axes, quantizer.narrow_range)
    lowest, highest = ops.symmetric_levels(bits, True, scale.dtype)
    zero = tf.zeros((), scale.dtype)
    return ops.fake_quantize(kernel, scale, zero, lowest, highest, quantizer.rounding).numpy()

def with_zero(ends: Range) -> Range:
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    return (low, high) if high > low else (0.0, 1.0)


class FakeQuant(keras.layers.Layer):
    def __init__(self, ends, **kwargs):
        super().__init__(**kwargs)
        self.ends = ends

    def call(self, inputs):
        low, high = self.ends
        return tf.quantization.fake_quant_with_min_max_args(inputs, low, high, num_bits=_BITS)


def with_ranges(plain, ranges):
    def call_layer(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if layer.name in ranges:
            outputs = FakeQuant(with_zero(ranges[layer.name]), name=f"{layer.name}_range")(outputs)
        return outputs
    def clone_layer(layer):
        return type(layer).from_config(layer.get_config())
    clone = keras.models.clone_model(plain, clone_function=clone_layer, call_function=call_layer, recursive=False)
    clone.set_weights(plain.get_weights())
    first = FakeQuant(with_zero(ranges[plain.layers[0].name]), name="images_range")
    i = keras.Input(batch_shape=plain.inputs[0].shape)
    return keras.Model(i, clone(first(i)))


class Module(tf.Module):
    def __init__(self, plain):
        super().__init__()
        self.v = [v.value for v in plain.variables]
        self.f = tf.function(lambda images: plain(images, training=False), input_signature=[tf.TensorSpec([1, *plain.input_shape[1:]], tf.float32)])


def convert(plain, int8, representative=None):
    module = Module(plain)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if representative:
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32
    return converter.convert()
