"""The images that an evaluation works on."""

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.evaluation import data


def test_first_images():
    images = list(range(5))
    assert data.first_images("test_images", images, None) == images
    assert data.first_images("test_images", images, 2) == [0, 1]
    assert data.first_images("calibration_images", images, None, usual=3) == [0, 1, 2]
    with pytest.raises(UserError, match="--test_images=6 with 5 images; allowed: 1 to 5"):
        data.first_images("test_images", images, 6)


def test_calibration_images_are_the_first_or_drawn_by_their_seed():
    images = np.arange(20.0)
    np.testing.assert_array_equal(data.calibration_images(images, 3, None), [0, 1, 2])
    assert len(data.calibration_images(images, None, None)) == 20
    drawn, again, other = (
        data.calibration_images(images, 5, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(drawn, again)
    assert len(set(drawn)) == 5 and set(drawn) != set(other)
    with pytest.raises(UserError, match="--calibration_images=21 with 20 images"):
        data.calibration_images(images, 21, 1)
