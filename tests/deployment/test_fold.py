"""Folding keeps the inference pass and leaves plain layers only."""

import keras
import numpy as np
import pytest

from tests.deployment.conftest import randomize_norms
from tfcq.deployment.fold import fold
from tfcq.errors import UserError


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def assert_same_features(model, folded, images):
    np.testing.assert_allclose(folded(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_folded_resnet_computes_the_same_with_plain_layers_only(network, images):
    folded = fold(network)
    assert_same_features(network, folded, images)
    assert set(kinds(folded)) == {
        "InputLayer", "Conv2D", "ReLU", "Add", "ZeroPadding2D", "GlobalAveragePooling2D",
    }  # fmt: skip


def test_a_folded_mobilenet_computes_the_same_without_batch_norms():
    model = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None)
    randomize_norms(model)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    folded = fold(model)
    assert_same_features(model, folded, images)
    assert "BatchNormalization" in kinds(model) and "BatchNormalization" not in kinds(folded)


def test_dense_layers_with_bias_and_depthwise_multipliers_are_folded():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    x = keras.layers.BatchNormalization(center=False)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, bias_initializer="normal")(x)
    model = keras.Model(inputs, keras.layers.BatchNormalization(scale=False)(x))
    for layer in model.layers:
        layer.set_weights([np.random.default_rng(0).random(w.shape) + 0.5 for w in layer.weights])
    folded = fold(model)
    assert kinds(folded) == ["InputLayer", "DepthwiseConv2D", "Flatten", "Dense"]
    assert_same_features(model, folded, np.random.default_rng(1).random((4, 6, 6, 3), np.float32))


def test_a_norm_stays_where_something_else_reads_the_convolution_or_it_has_an_activation():
    inputs = keras.Input((6, 6, 3))
    shared = keras.layers.Conv2D(3, 1)(inputs)
    x = keras.layers.Add()([shared, keras.layers.BatchNormalization()(shared)])
    x = keras.layers.Conv2D(3, 1, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(x))
    randomize_norms(model)
    folded = fold(model)
    assert kinds(folded) == kinds(model)
    assert_same_features(model, folded, np.random.default_rng(1).random((4, 6, 6, 3), np.float32))


def test_a_norm_stays_where_the_convolution_is_an_output_too():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(3, 1)(inputs)
    model = keras.Model(inputs, [x, keras.layers.BatchNormalization()(x)])
    assert "BatchNormalization" in kinds(fold(model))


def test_a_model_inside_a_model_is_refused():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="inner")
    inputs = keras.Input((3,))
    with pytest.raises(UserError, match="'inner'.*layers only"):
        fold(keras.Model(inputs, inner(inputs)))
