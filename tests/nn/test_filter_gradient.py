"""Filter gradients as products of patches are those of the convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.nn import filter_gradient
from tfcq.nn.layers import QuantizedConv2D


def whole_numbers(shape, seed):
    """Values whose products and short sums bfloat16 holds exactly."""
    drawn = tf.random.stateless_uniform(shape, (seed, 0), -1, 2, tf.int32, alg="philox")
    return tf.cast(drawn, tf.bfloat16)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("size", "window", "strides"), [(3, (3, 3), 1), (4, (2, 3), 1), (5, (3, 2), 2), (3, (1, 1), 1)]
)
def test_gradients_are_those_of_the_convolution(size, window, strides, padding):
    filters = 8 * size**2
    layer = QuantizedConv2D(filters, window, strides, padding, dtype="bfloat16")
    inputs = whole_numbers((2, size, size, 3), 0)
    kernel = whole_numbers((*window, 3, filters), 1)
    assert filter_gradient.pays(layer, inputs)
    found, expected = (
        output_and_gradients(convolve, inputs, kernel)
        for convolve in (
            layer.convolution_op,
            lambda x, w: tf.nn.conv2d(x, w, strides, padding.upper()),
        )
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(tf.cast(one, tf.float32), tf.cast(other, tf.float32))


def output_and_gradients(convolve, inputs, kernel):
    with tf.GradientTape() as tape:
        tape.watch((inputs, kernel))
        outputs = convolve(inputs, kernel)
    upstream = whole_numbers(outputs.shape, 2)
    return (outputs, *tape.gradient(outputs, (inputs, kernel), upstream))


@pytest.mark.parametrize(
    ("filters", "dtype", "others"),
    [
        (127, "bfloat16", {}),
        (128, "float32", {}),
        (128, "bfloat16", {"groups": 2}),
        (128, "bfloat16", {"dilation_rate": 2}),
        (128, "bfloat16", {"data_format": "channels_first"}),
    ],
)
def test_other_layers_keep_the_gradient_of_tensorflow(filters, dtype, others):
    layer = keras.layers.Conv2D(filters, 3, padding="same", **others)
    assert not filter_gradient.pays(layer, tf.zeros((2, 4, 4, 4), dtype))


def test_sizes_that_a_trace_does_not_know_keep_the_gradient_of_tensorflow():
    inputs = keras.KerasTensor((None, None, None, 4), "bfloat16")
    assert not filter_gradient.pays(keras.layers.Conv2D(128, 3, padding="same"), inputs)
