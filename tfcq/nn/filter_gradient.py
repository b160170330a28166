"""Convolutions whose filter gradient is one product of patches, where that is faster.

oneDNN's of few pixels and many filters in bfloat16 takes twice the time of the product: 13.6 and
7.4 ms for 64 images of 4 x 4 x 512 and 512 filters of 3 x 3 on two cores with AVX-512, 12.0 and
5.0 ms from 8 x 8 x 256 with a stride of 2.
"""

import itertools

import keras
import tensorflow as tf

from tfcq.quantization.fused import accelerated

# Measured with 16 to 256 images; with fewer filters the product loses.
_FILTERS_PER_PIXEL = 8


def pays(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> bool:
    """Whether the filter gradient of a layer is faster as a product.

    Args:
        layer: the layer.
        inputs: what it convolves.
    """
    plain = layer.groups == 1 and layer.dilation_rate == (1, 1)
    if inputs.dtype != tf.bfloat16 or layer.data_format != "channels_last" or not plain:
        return False
    _, height, width, filters = layer.compute_output_shape(inputs.shape)
    if None in (height, width) or accelerated():
        return False
    return height * width * _FILTERS_PER_PIXEL <= filters


def convolve(layer: keras.layers.Conv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the convolution of a layer, whose filter gradient is a product of patches.

    Args:
        layer: one for which this pays.
        inputs: bfloat16 tensor [images, height, width, channels].
        kernel: bfloat16 tensor [height, width, channels, filters].
    """
    strides, padding = [1, *layer.strides, 1], layer.padding.upper()

    @tf.custom_gradient
    def convolution(inputs: tf.Tensor, kernel: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shape = tf.shape(inputs)
            to_inputs = tf.nn.conv2d_transpose(upstream, kernel, shape, strides, padding)
            patches = _patches(inputs, kernel.shape[:2], strides, padding)
            rows = (tf.reshape(one, [-1, one.shape[-1]]) for one in (patches, upstream))
            return to_inputs, tf.reshape(tf.matmul(*rows, transpose_a=True), kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, padding), gradient

    return convolution(inputs, keras.ops.convert_to_tensor(kernel))


def _patches(
    inputs: tf.Tensor, window: tf.TensorShape, strides: list[int], padding: str
) -> tf.Tensor:
    """Returns what each output sees, [images, height, width, window * channels]."""
    if strides != [1, 1, 1, 1]:
        return tf.image.extract_patches(inputs, [1, *window, 1], strides, [1, 1, 1, 1], padding)
    # Slices take a third of the time where they are contiguous.
    if padding == "SAME":
        around = [[(size - 1) // 2, size // 2] for size in window]
        inputs = tf.pad(inputs, [[0, 0], *around, [0, 0]])
    height, width = (inputs.shape[1 + i] - window[i] + 1 for i in range(2))
    places = itertools.product(range(window[0]), range(window[1]))
    return tf.concat([inputs[:, i : i + height, j : j + width] for i, j in places], axis=-1)
