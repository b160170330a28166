"""Quantized layers and the activation quantizer, one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import (
    FLOAT_COUNTERPARTS,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
)
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer
from tfcq.quantization.precision import Precision, RecordRanges

CONV, DEPTHWISE, DENSE = [0, 1, 2], [0, 1], [0]
CASES = [
    (QuantizedConv2D, dict(filters=3, kernel_size=3, strides=2, activation="relu"), CONV),
    (QuantizedConv2D, dict(filters=4, kernel_size=3, groups=2, padding="same"), CONV),
    (QuantizedConv2D, dict(filters=2, kernel_size=3, dilation_rate=2, use_bias=False), CONV),
    (QuantizedConv2D, dict(filters=2, kernel_size=1, strides=2, padding="same"), CONV),
    (
        QuantizedDepthwiseConv2D,
        dict(kernel_size=3, depth_multiplier=2, activation="tanh"),
        DEPTHWISE,
    ),
    (QuantizedDepthwiseConv2D, dict(kernel_size=2, strides=2, padding="same"), DEPTHWISE),
    (QuantizedDepthwiseConv2D, dict(kernel_size=3, dilation_rate=2), DEPTHWISE),
    (QuantizedDense, dict(units=5, activation="relu"), DENSE),
    (QuantizedDense, dict(units=5, use_bias=False), DENSE),
]


def float_twin(layer):
    """Returns the Keras layer that a quantized one derives from, with the same weights."""
    kind = FLOAT_COUNTERPARTS[type(layer)]
    config = layer.get_config()
    del config["weight_quantizer"]
    twin = kind.from_config(config)
    twin.build((None, 7, 7, 4))
    twin.set_weights(layer.get_weights())
    return twin


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{len(case[1])}")
def case(request):
    kind, arguments, axes = request.param
    keras.utils.set_random_seed(1)
    layer = kind(bias_initializer="random_normal", **arguments)
    images = tf.random.stateless_normal([2, 7, 7, 4], [1, 1])
    layer(images)
    return layer, images, axes


@pytest.mark.parametrize("precision", [None, RecordRanges(True)])
def test_float_pass_equals_the_keras_layer_to_the_last_bit(case, precision):
    layer, images, _ = case
    twin = float_twin(layer)
    np.testing.assert_array_equal(layer(images, precision=precision), twin(images))


def test_quantized_pass_equals_the_keras_layer_with_quantized_weights(case):
    layer, images, axes = case
    twin = float_twin(layer)
    twin.kernel.assign(MinMaxWeightQuantizer()(tf.convert_to_tensor(twin.kernel), 3, axes))
    quantized = layer(images, precision=Precision(3, 8))
    np.testing.assert_array_equal(quantized, twin(images))
    assert np.any(quantized != layer(images))


def test_layer_comes_back_from_its_configuration(case):
    layer, images, _ = case
    layer.weight_quantizer = MinMaxWeightQuantizer(bits=3, narrow_range=True)
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(layer.get_weights())
    assert copy.weight_quantizer.__dict__ == layer.weight_quantizer.__dict__
    same = Precision(8, 8)
    np.testing.assert_array_equal(copy(images, precision=same), layer(images, precision=same))


def test_seed_of_the_pass_reaches_stochastic_rounding():
    layer = QuantizedDense(50, weight_quantizer=MinMaxWeightQuantizer(rounding="stochastic"))
    x = tf.ones([1, 40])
    first, again, other = (layer(x, precision=Precision(4, 8, seed=[s, 0])) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.fixture
def quantizer():
    layer = ActivationQuantizer(name="here")
    layer.build((None, 3))
    return layer


def ends(layer):
    return float(layer.minimum.value), float(layer.maximum.value)


def test_range_starts_empty_and_float_passes_leave_it(quantizer):
    x = tf.constant([[1.0, -2.0, 3.0]])
    assert quantizer(x) is x or np.array_equal(quantizer(x), x)
    assert ends(quantizer) == (np.inf, -np.inf)
    assert not quantizer.trainable_variables


def test_recording_resets_or_widens_the_range_and_changes_nothing_else(quantizer):
    seen = []
    for values, reset in (([1.0, 2.0], True), ([-1.0, 1.5], False), ([0.0, 5.0], False),
                          ([3.0, 4.0], True), ([3.5, 3.6], False)):  # fmt: skip
        x = tf.constant([values])
        np.testing.assert_array_equal(quantizer(x, precision=RecordRanges(reset)), x)
        seen.append(ends(quantizer))
    assert seen == [(1, 2), (-1, 2), (-1, 5), (3, 4), (3, 4)]


def test_a_quantizer_called_twice_in_a_pass_widens_what_the_pass_recorded(quantizer):
    quantizer(tf.constant([[-9.0, 9.0]]), precision=RecordRanges(True))
    one_pass = RecordRanges(True)
    quantizer(tf.constant([[0.0, 3.0]]), precision=one_pass)
    quantizer(tf.constant([[0.5, 1.0]]), precision=one_pass)
    assert ends(quantizer) == (0, 3)


VALUES = tf.reshape(tf.linspace(-1.0, 1.0, 120), (40, 3))


def dense_on_values(name):
    quantizer = MinMaxWeightQuantizer(rounding="stochastic")
    layer = QuantizedDense(3, weight_quantizer=quantizer, name=name)
    layer.build((None, 40))
    layer.kernel.assign(VALUES)
    return lambda precision: layer(tf.eye(40), precision=precision)


def activations_on_values(name):
    layer = ActivationQuantizer(MinMaxActivationQuantizer(rounding="stochastic"), name=name)
    return lambda precision: layer(VALUES, precision=precision)


@pytest.mark.parametrize("of_layer", [dense_on_values, activations_on_values])
def test_layers_with_equal_values_round_stochastically_each_in_its_own_way(of_layer):
    layers = [of_layer(name) for name in ("one", "other")]
    precision = Precision(4, 4, "tensor", seed=tf.constant([1, 2]))
    one, other, again = (layer(precision).numpy() for layer in (*layers, layers[0]))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_widening_the_empty_range_takes_the_first_one(quantizer):
    quantizer(tf.constant([[2.0, 3.0]]), precision=RecordRanges(False))
    assert ends(quantizer) == (2, 3)


def test_recorded_range_decides_the_grid(quantizer):
    quantizer(tf.constant([[-1.0, 2.0]]), precision=RecordRanges(True))
    x = tf.constant([[-9.0, 0.4, 0.6, 1.4, 9.0]])
    y = quantizer(x, precision=Precision(8, 2))
    assert y.numpy().tolist() == [[-1.0, 0.0, 1.0, 1.0, 2.0]]
    assert ends(quantizer) == (-1, 2)


def test_range_of_the_tensor_itself_needs_no_recording(quantizer):
    x = tf.constant([[-1.0, 0.4, 0.6, 1.4, 2.0]])
    y = quantizer(x, precision=Precision(8, 2, ranges="tensor"))
    assert y.numpy().tolist() == [[-1.0, 0.0, 1.0, 1.0, 2.0]]
    assert ends(quantizer) == (np.inf, -np.inf)


def test_no_gradient_flows_through_recording():
    layer = ActivationQuantizer()
    x = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, precision=RecordRanges(True)) * 3
    assert tape.gradient(y, x).numpy().tolist() == [[3.0, 3.0]]


def test_range_never_recorded_is_told_by_name(quantizer):
    expected = "Activation quantizer 'here' has no recorded range.*tfcq.calibrate"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        quantizer(tf.ones([1, 3]), precision=Precision(8, 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("widened", [False, True])
def test_values_that_are_not_finite_are_told_not_quantized(quantizer, bad, widened):
    quantizer(tf.constant([[0.0, bad, 1.0]]), precision=RecordRanges(True))
    if widened:
        quantizer(tf.constant([[0.0, 1.0, 1.0]]), precision=RecordRanges(False))
    with pytest.raises(tf.errors.InvalidArgumentError):
        quantizer(tf.ones([1, 3]), precision=Precision(8, 8))


def test_activation_quantizer_comes_back_from_its_configuration():
    layer = ActivationQuantizer(MinMaxActivationQuantizer(bits=5, rounding="floor"), name="here")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.name == "here"
    assert copy.quantizer.__dict__ == layer.quantizer.__dict__


@pytest.mark.parametrize(
    ("dtype", "range_dtype"),
    [("mixed_float16", "float32"), ("mixed_bfloat16", "float32"), ("bfloat16", "float32"),
     ("float64", "float64")],
)  # fmt: skip
def test_ranges_keep_their_precision(dtype, range_dtype):
    layer = ActivationQuantizer(dtype=dtype)
    x = tf.constant([[0.1, 70000.0]] if dtype == "mixed_bfloat16" else [[0.1, 300.0]])
    y = layer(x, precision=RecordRanges(True))
    assert layer.minimum.dtype == layer.maximum.dtype == range_dtype
    assert y.dtype == layer.compute_dtype
    assert ends(layer) == (float(y[0, 0]), float(y[0, 1]))
