"""Calibration records the ranges of its images, and refuses those it cannot use."""

import numpy as np
import pytest

from tests.small_digits import calibrated_network, few_digits
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate


@pytest.fixture
def images():
    return few_digits()


@pytest.fixture
def model(images):
    return calibrated_network(images)


def test_calibration_records_the_same_ranges_whatever_the_batch_size(model, images):
    def ranges():
        return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]

    whole = ranges()
    calibrate(model, images, batch_size=7)
    np.testing.assert_allclose(ranges(), whole, rtol=1e-6)
    calibrate(model, images[:1])
    assert not np.allclose(ranges(), whole)


def test_calibration_refuses_images_of_another_type_or_shape(model, images):
    with pytest.raises(UserError, match="Images of type uint8 .*pixels / 255"):
        calibrate(model, (255 * images).astype(np.uint8))
    with pytest.raises(UserError, match=r"Images of shape \(\d+, 3\) .*'any'"):
        calibrate(model, np.zeros((2, 3), np.float32))


def test_calibration_refuses_no_images_and_nan(model, images):
    with pytest.raises(UserError, match="0 images"):
        calibrate(model, images[:0])
    images[3, 2, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        calibrate(model, images)
