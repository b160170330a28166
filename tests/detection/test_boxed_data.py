"""The images of a detection as its settings ask for them."""

import dataclasses

import numpy as np
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


def test_images_are_scored_no_more_pixels_at_once_than_memory_has():
    split = scenes(test=20).split("test")
    several = dataclasses.replace(split, image_shape=(None, None, 1))

    def first(given, side, longest):
        config = detection_from_flat({"run_dir": "run", "longest_side": longest})
        batch = next(iter(BoxedData(config, given, given, (side,)).plain(given, 32)))
        return batch["images"].shape[:3]

    assert first(split, 64, 3000) == (16, 64, 64)
    # Of several sizes, some of which may be so large.
    assert first(several, 64, 1333) == (2, 64, 64)
    assert first(several, 64, 3000) == (1, 64, 64)


def test_ranges_are_of_the_first_training_images_in_batches_of_one_shape():
    split = dataclasses.replace(scenes(train=20).split("train"), image_shape=(None, None, 1))
    config = detection_from_flat({"run_dir": "run", "longest_side": 90, "calibration_images": 18})
    batches, count = BoxedData(config, split, split, (64,)).calibration(32)
    found = list(batches)
    assert count == 18 and [len(batch["index"]) for batch in found] == [16, 2]
    assert {tuple(batch["images"].shape[1:3]) for batch in found} == {(64, 64)}
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in found]), range(18))
