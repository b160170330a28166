"""Products in half precision, and nothing else in it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tfcq.nn.products import multiply_in, product_dtype
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.precision import Precision, RecordRanges

HALF = tf.bfloat16


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)], name="inner")
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, name="conv", activation="relu")(inputs)
    x = keras.layers.Flatten()(inner(x))
    dense = keras.layers.Dense(2, name="dense", use_bias=False)
    return tfcq.quantizable(keras.Model(inputs, dense(x)))


@pytest.fixture
def images():
    return tf.random.stateless_uniform((4, 6, 6, 2), (0, 0))


@pytest.mark.parametrize("precision", [None, Precision(3, 4, ranges="tensor")], ids=["fp", "3w4a"])
def test_factors_are_rounded_to_bfloat16_behind_their_quantizer_and_products_are_float32(
    model, images, precision
):
    conv = model.get_layer("conv")
    kernel = tf.convert_to_tensor(conv.kernel)
    if precision is not None:
        kernel = MinMaxWeightQuantizer(bits=8)(kernel, 3, [0, 1, 2])
    product = tf.nn.conv2d(tf.cast(images, HALF), tf.cast(kernel, HALF), 1, "VALID")
    expected = tf.nn.relu(tf.cast(product, tf.float32) + conv.bias)
    multiply_in(model, "bfloat16")
    found = conv(images, precision=precision)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, expected)


def test_processors_add_products_of_float16_in_float32_as_gpus_do():
    images = tf.random.stateless_normal((8, 16, 16, 2), (0, 0))
    inputs = keras.Input(images.shape[1:])
    model = tfcq.quantizable(keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs)))
    multiply_in(model, "float16")
    kernel = model.layers[-1].kernel

    def rounded(x):
        return tf.cast(tf.cast(x, tf.float16), tf.float32)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        found = model(images)
        loss = tf.reduce_sum(found**2)
        expected = rounded(tf.nn.conv2d(rounded(images), rounded(kernel), 1, "VALID"))
        loss_expected = tf.reduce_sum(expected**2)
        too_large = 1e6 * loss
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        tape.gradient(loss, kernel.value), tape.gradient(loss_expected, kernel.value)
    )
    # A loss that is scaled too far shows as it does on GPUs.
    assert np.isinf(tape.gradient(too_large, images)).any()


def test_every_kernel_takes_part_and_float32_undoes_it(model, images):
    before = model(images)
    multiply_in(model, "bfloat16")
    named = [model.get_layer("conv"), model.get_layer("dense"), *model.get_layer("inner").layers]
    kernels = [layer for layer in named if hasattr(layer, "product_dtype")]
    assert [layer.product_dtype for layer in kernels] == ["bfloat16"] * 3
    assert model(images).dtype == tf.float32
    assert 0 < np.abs(model(images) - before).max() < 0.05
    multiply_in(model, "float32")
    np.testing.assert_array_equal(model(images), before)


def test_ranges_and_gradients_stay_float32(model, images):
    multiply_in(model, "bfloat16")
    model(images, precision=RecordRanges(reset=True))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, precision=Precision(4, 4)) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    assert {variable.dtype for variable in model.variables} <= {"float32", "int32"}


def test_saved_models_say_nothing_of_it(model, images, tmp_path):
    before = model(images)
    multiply_in(model, "bfloat16")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), before)


def test_auto_takes_what_the_device_has_and_a_given_dtype_stays(monkeypatch):
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("tfcq.nn.products._multiplies_bfloat16", lambda has=has: has)
        assert product_dtype("auto") == expected
        assert product_dtype("bfloat16") == "bfloat16"
