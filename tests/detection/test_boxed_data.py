"""The images of a detection as its settings ask for them."""

import pytest

from tests.detection.small import scenes
from tfcq.detection.boxed_data import BoxedData
from tfcq.settings.detection import detection_from_flat


@pytest.mark.parametrize("mosaic, most", [(False, 6), (True, 24)])
def test_training_has_the_mosaics_that_were_asked_for(mosaic, most):
    config = detection_from_flat({"run_dir": "run", "mosaic": mosaic})
    train, test = (scenes().split(name) for name in ("train", "test"))
    batches = BoxedData(config, train, test, (64,)).training(0, 32)
    assert batches.element_spec["boxes"].shape == (8, most, 4)
