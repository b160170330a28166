"""The boxes of a split as they are scored."""

import numpy as np
import pytest

from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.digits import DigitsSource
from tfcq.detection.average_precision import Detections, voc_figures
from tfcq.detection.truths import truths_of

PERFECT = {"AP": 100, "AP50": 100, "AP75": 100}


@pytest.fixture(scope="module")
def split():
    return ScenesSource(DigitsSource(), "scenes", counts={"train": 1, "test": 12}).split("test")


def perfect(truths):
    """Returns detections of just what is there."""
    return [Detections(t.boxes, np.ones(len(t.boxes)), t.classes, t.masks) for t in truths]


def test_what_is_there_is_found_without_a_fault(split):
    truths = truths_of(split)
    assert len(truths) == 12 and truths[0].masks is None
    assert voc_figures(truths, perfect(truths), 10) == pytest.approx(PERFECT)


def test_masks_are_those_of_the_images(split):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    from tfcq.detection.coco_precision import coco_figures

    truths = truths_of(split, masks=True)
    figures = coco_figures(truths, perfect(truths), 10, masks=True)
    assert {name: figures[name] for name in PERFECT} == pytest.approx(PERFECT)
    first = next(split.records.map(split.decode).as_numpy_iterator())
    decoded = np.stack([coder.decode(mask) for mask in truths[0].masks])
    np.testing.assert_array_equal(decoded, first["masks"])
