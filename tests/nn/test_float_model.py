"""A quantizable model gives back the float one, and takes another policy."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.float_model import float_model, requantizable
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import PAPER


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.Conv2D(4, 3, name="inner_conv"), layers.ReLU()],
        name="inner",
    )
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.GlobalAveragePooling2D(name="features")(inner(x))
    return keras.Model(inputs, layers.Dense(3, name="dense")(x), name="network")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 8, 8, 1)).astype(np.float32)


@pytest.mark.parametrize("policy", ["paper", "contrastive_quant"])
def test_float_model_is_the_original(network, images, policy):
    plain = float_model(quantizable(network, policy))
    assert [type(layer) for layer in plain.layers if layer.name != "inner"] == [
        type(layer) for layer in network.layers if layer.name != "inner"
    ]
    names = [[w.path.split("/")[-2:] for w in model.weights] for model in (plain, network)]
    assert names[0] == names[1]
    np.testing.assert_array_equal(plain(images), network(images))


def test_learned_scales_are_left_behind(network, images):
    learning = quantizable(network, PAPER.with_quantizers("lsq", "pact"))
    assert len(learning.trainable_weights) > len(network.trainable_weights)
    plain = float_model(learning)
    assert len(plain.trainable_weights) == len(network.trainable_weights)
    np.testing.assert_array_equal(plain(images), network(images))


def test_another_policy_is_the_one_that_the_original_would_have_been_given(network, images):
    found = requantizable(quantizable(network, "contrastive_quant"), "uniform")
    expected = quantizable(network, "uniform")
    for model in (found, expected):
        calibrate(model, images)
    precision = Precision(3, 4)
    np.testing.assert_array_equal(
        found(images, precision=precision), expected(images, precision=precision)
    )


def test_float_models_are_refused(network):
    with pytest.raises(UserError, match="'network' is a float model already"):
        float_model(network)
