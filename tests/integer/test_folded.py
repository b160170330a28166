"""Folding keeps the inference pass and leaves plain layers only."""

import keras
import numpy as np
import pytest

from tests.integer.conftest import randomize_norms
from tfcq.integer.folded import folded


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def assert_same_features(model, plain, images):
    np.testing.assert_allclose(plain(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_folded_resnet_computes_the_same_with_plain_layers_only(network, images):
    plain = folded(network).model
    assert_same_features(network, plain, images)
    # A mean over one pixel only changes the shape.
    assert set(kinds(plain)) == {
        "InputLayer", "Conv2D", "ReLU", "Add", "ZeroPadding2D", "Reshape",
    }  # fmt: skip


def test_a_folded_mobilenet_computes_the_same_without_batch_norms():
    model = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None)
    randomize_norms(model)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    plain = folded(model).model
    assert_same_features(model, plain, images)
    assert "BatchNormalization" in kinds(model) and "BatchNormalization" not in kinds(plain)


def test_dense_layers_with_bias_and_depthwise_multipliers_are_folded():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    x = keras.layers.BatchNormalization(center=False)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, bias_initializer="normal")(x)
    model = keras.Model(inputs, keras.layers.BatchNormalization(scale=False)(x))
    for layer in model.layers:
        layer.set_weights([np.random.default_rng(0).random(w.shape) + 0.5 for w in layer.weights])
    plain = folded(model).model
    assert kinds(plain) == ["InputLayer", "DepthwiseConv2D", "Flatten", "Dense"]
    assert_same_features(model, plain, np.random.default_rng(1).random((4, 6, 6, 3), np.float32))


def test_a_norm_is_a_convolution_of_its_own_where_something_else_reads_what_it_reads():
    inputs = keras.Input((6, 6, 3))
    shared = keras.layers.Conv2D(3, 1)(inputs)
    x = keras.layers.Add()([shared, keras.layers.BatchNormalization(name="norm")(shared)])
    x = keras.layers.Conv2D(3, 1, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="last")(x))
    randomize_norms(model)
    plain = folded(model).model
    own = [layer.name for layer in plain.layers if type(layer) is keras.layers.DepthwiseConv2D]
    assert own == ["norm", "last"]
    assert_same_features(model, plain, np.random.default_rng(1).random((4, 6, 6, 3), np.float32))


def test_a_convolution_that_is_an_output_too_keeps_its_values():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(3, 1)(inputs)
    model = keras.Model(inputs, [x, keras.layers.BatchNormalization()(x)])
    randomize_norms(model)
    images = np.random.default_rng(1).random((4, 6, 6, 3), np.float32)
    for found, expected in zip(folded(model).model(images), model(images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def nested_and_shared(inputs):
    inner_inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4, activation="silu")(inner_inputs))
    inner = keras.Model(inner_inputs, x, name="inner")
    x = keras.layers.Conv2D(4, 3, activation="hard_sigmoid")(inputs)
    x = (x - 0.5) * 2
    x = keras.ops.mean(x[:, ::2, 1:][:, :, :, None][..., 0, :], axis=(1, 2))
    return [inner(inner(x)), keras.layers.Dense(2)(x)]


def branches(inputs):
    x = keras.layers.Rescaling(2.0, -1.0)(inputs)
    x = keras.layers.SeparableConv2D(6, 3, activation="relu")(x)
    pools = keras.layers.AveragePooling2D, keras.layers.MaxPooling2D
    x = keras.layers.Concatenate()([pool(2, padding="same")(x) for pool in pools])
    x = keras.layers.Average()([x, keras.layers.AveragePooling2D(1)(x), 1 - x])
    x = keras.layers.LeakyReLU()(keras.layers.Cropping2D(1)(x))
    x = keras.layers.UpSampling2D(2)(keras.layers.ELU()(x))
    return keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))


@pytest.mark.parametrize("build", [nested_and_shared, branches])
def test_any_graph_becomes_flat_and_computes_the_same(build):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 3))
    model = keras.Model(inputs, build(inputs))
    randomize_norms(model)
    plain = folded(model).model
    assert not any(isinstance(layer, keras.Model) for layer in plain.layers)
    images = np.random.default_rng(1).random((4, 9, 9, 3), np.float32)
    pairs = zip(keras.tree.flatten(plain(images)), keras.tree.flatten(model(images)), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert folded(plain).model.get_config() == plain.get_config()


@pytest.mark.parametrize(
    ("kernel", "around", "size", "taken_over"),
    [
        (keras.layers.Conv2D(2, 3, strides=2), ((0, 1), (0, 1)), 6, True),
        (keras.layers.DepthwiseConv2D(3, strides=2), 1, 7, True),
        (keras.layers.Conv2D(2, 3, dilation_rate=2), 2, 6, True),
        (keras.layers.Conv2D(2, 3, strides=2), 1, 6, False),
        (keras.layers.Conv2D(2, 3, strides=2), ((1, 0), (1, 0)), 6, False),
        (keras.layers.Conv2D(2, 3, padding="same"), 1, 6, False),
    ],
)
def test_a_kernel_takes_over_the_padding_before_it_where_it_pads_as_much(
    kernel, around, size, taken_over
):
    inputs = keras.Input((size, size, 3))
    model = keras.Model(inputs, kernel(keras.layers.ZeroPadding2D(around)(inputs)))
    plain = folded(model).model
    assert ("ZeroPadding2D" not in kinds(plain)) == taken_over
    assert_same_features(model, plain, np.random.default_rng(0).random((2, size, size, 3), "f4"))
