"""Features at any bit-width come from one trace."""

import numpy as np
import pytest

from tests.small_digits import calibrated_network, few_digits
from tfcq.evaluation.features import FeatureExtractor
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import parse_bit_widths

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
    assert features.traces == 1
    np.testing.assert_allclose(found["fp"], model(images), atol=1e-6)
    np.testing.assert_allclose(found["2w4a"], model(images, precision=Precision(2, 4)), atol=1e-5)
    assert np.abs(found["2w4a"] - found["fp"]).max() > 1e-3
