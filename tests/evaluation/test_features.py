"""Features at any bit-width come from one trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.small_digits import calibrated_network, few_digits
from tfcq.evaluation.features import FeatureExtractor
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth, parse_bit_widths

EIGHT = parse_bit_widths("fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a")


@pytest.fixture
def images():
    return few_digits()


@pytest.fixture
def model(images):
    return calibrated_network(images)


def test_eight_bit_widths_with_a_smaller_last_batch_share_one_trace(model, images):
    features = FeatureExtractor(model, batch_size=25)
    found = {str(bits): features(images, bits) for bits in EIGHT}
    assert features.traces == 2  # One of the float pass.
    np.testing.assert_allclose(found["fp"], model(images), atol=1e-6)
    np.testing.assert_allclose(found["2w4a"], model(images, precision=Precision(2, 4)), atol=1e-5)
    assert np.abs(found["2w4a"] - found["fp"]).max() > 1e-3


def test_kernels_of_a_half_precision_network_are_rounded_before_they_are_quantized(images):
    mixed = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, dtype=mixed), keras.layers.Flatten()]
    )
    model = quantizable(network, "uniform")
    calibrate(model, images)
    found = FeatureExtractor(model)(images, BitWidth(3, 8))
    expected = tf.function(lambda x: model(x, precision=Precision(3, 8)))(images)
    np.testing.assert_array_equal(found, np.asarray(expected, found.dtype))


def test_kernels_are_quantized_once_for_all_batches_and_anew_after_training(model, images):
    features = FeatureExtractor(model, batch_size=20)
    quantized = []
    features._kernels = lambda: quantized.append(1) or features._quantized_kernels()
    before = features(images, BitWidth(4, 4))
    assert len(quantized) == 1
    model.layers[1].kernel.assign(-model.layers[1].kernel)
    assert np.abs(features(images, BitWidth(4, 4)) - before).max() > 0.1
