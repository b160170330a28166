"""Images by mean and deviation, as the first layer of a network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.build import backbone_from
from tfcq.backbones.input_normalization import with_normalized_input
from tfcq.backbones.resnet import resnet
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.folded import folded
from tfcq.integer.runtime import LiteModel
from tfcq.nn.calibration import calibrate
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import POLICIES
from tfcq.settings.training import config_from_flat
from tfcq.settings.unused import check_used

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
W8A8 = Precision(8, 8)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    pixels = random.random((32, 12, 12, 3)) * random.integers(1, 256, (32, 1, 1, 3))
    return np.floor(pixels).astype(np.float32) / 255


def outside(images, mean=MEAN, deviation=DEVIATION):
    return ((images - np.array(mean)) / np.array(deviation)).astype(np.float32)


@pytest.fixture(scope="module")
def networks(images):
    """A network with statistics of its own, and the same behind normalized images."""
    keras.utils.set_random_seed(0)
    plain = resnet(18, width=4, input_shape=(12, 12, 3), blocks=(1, 1))
    for _ in range(20):
        plain(outside(images), training=True)
    return plain, with_normalized_input(plain, MEAN, DEVIATION)


def test_network_sees_what_the_sources_compute_before_it_borders_included(networks, images):
    plain, normalized = networks
    assert normalized.input_shape == plain.input_shape and normalized.name == plain.name
    np.testing.assert_allclose(normalized(images), plain(outside(images)), rtol=1e-4, atol=1e-5)
    # One number stands for all channels.
    one = with_normalized_input(plain, (0.5,), (0.25,))
    expected = plain(outside(images, 0.5, 0.25))
    np.testing.assert_allclose(one(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_quantizes_what_stands_before_the_first_kernel(networks, policy):
    plain, normalized = (quantizable(network, policy) for network in networks)
    names = [layer.name for layer in normalized.layers]
    assert names[:3] == ["images", "input_normalization", "stem"]
    # All quantizers stand where they do without it, at the same bits.
    assert names[2:] == [layer.name for layer in plain.layers][1:]
    for layer in plain.layers[1:]:
        assert layer.get_config() == normalized.get_layer(layer.name).get_config()


def test_evaluation_saved_file_and_int8_model_contain_it(networks, images, tmp_path):
    plain, normalized = (quantizable(network, "int8") for network in networks)
    calibrate(plain, outside(images))
    calibrate(normalized, images)
    normalized.save(tmp_path / "normalized.keras")
    features = normalized(images, precision=W8A8).numpy()
    again = load(tmp_path / "normalized.keras")
    np.testing.assert_array_equal(again(images, precision=W8A8), features)
    np.testing.assert_allclose(plain(outside(images), precision=W8A8), features, atol=0.01)

    plain_copy = folded(normalized).model
    assert not any(isinstance(layer, keras.layers.Normalization) for layer in plain_copy.layers)
    np.testing.assert_allclose(plain_copy(images), normalized(images), rtol=1e-4, atol=1e-5)

    found = LiteModel(int8_tflite(normalized, images))(images)
    cosines = tf.reduce_sum(
        tf.math.l2_normalize(found, 1) * tf.math.l2_normalize(features, 1), axis=1
    )
    assert np.min(cosines) > 0.9995


def test_settings_put_it_in_front_of_the_network_of_a_run():
    small = {"width": 2, "input_mean": "0.5,0.4,0.3", "input_std": "0.2"}
    model = backbone_from(config_from_flat(small).network, (8, 8, 3))
    layer = model.layers[1]
    assert isinstance(layer, keras.layers.Normalization)
    np.testing.assert_allclose(np.ravel(layer.mean), [0.5, 0.4, 0.3])
    np.testing.assert_allclose(np.sqrt(np.ravel(layer.variance)), [0.2] * 3, rtol=1e-6)
    with pytest.raises(UserError, match="input_mean has 3 numbers, the images 1 channels"):
        backbone_from(config_from_flat(small).network, (8, 8, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"input_mean": "0.5"}, "--input_std=None; allowed: both or none"),
     ({"input_std": "0.5"}, "--input_mean=None with"),
     ({"input_mean": "0.5", "input_std": "0.2,0"}, "--input_std=0.2,0; allowed: numbers above 0"),
     ({"input_mean": "half", "input_std": "1"}, "--input_mean=half; allowed: numbers of pixels, "),
     ({"input_mean": "inf", "input_std": "1"}, "--input_mean=inf; allowed: numbers of pixels"),
     ({"input_mean": "127", "input_std": "1"}, "--input_mean=127; allowed: .* lie in 0 to 1"),
     ({"input_mean": "0.5", "input_std": "30"}, "--input_std=30; allowed: numbers above 0 to 1")],
)  # fmt: skip
def test_numbers_that_cannot_be_used_are_told(values, message):
    with pytest.raises(UserError, match=message):
        config_from_flat(values)


def test_network_of_others_brings_its_own():
    values = {"backbone": "applications:MobileNetV2", "input_mean": "0.5", "input_std": "0.2"}
    with pytest.raises(UserError, match="--input_mean has no effect here: backbone 'applications:"):
        check_used(config_from_flat(values), {"input_mean", "input_std"})
