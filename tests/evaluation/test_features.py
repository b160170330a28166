"""Features at any bit-width come from one trace."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfcq.evaluation.features import FeatureExtractor
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import parse_bit_widths

EIGHT = parse_bit_widths("fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a")


@pytest.fixture
def images():
    return (load_digits().images[:60, ..., None] / 16).astype(np.float32)


@pytest.fixture
def model(images):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = quantizable(network, "uniform")
    calibrate(model, images)
    return model


def test_eight_bit_widths_with_a_smaller_last_batch_share_one_trace(model, images):
    features = FeatureExtractor(model, batch_size=25)
    found = {str(bits): features(images, bits) for bits in EIGHT}
    assert features.traces == 1
    np.testing.assert_allclose(found["fp"], model(images), atol=1e-6)
    np.testing.assert_allclose(found["2w4a"], model(images, precision=Precision(2, 4)), atol=1e-5)
    assert np.abs(found["2w4a"] - found["fp"]).max() > 1e-3
