"""Average precision as COCO scores it."""

import dataclasses
import sys

import numpy as np
import pytest

from tests.detection.scored import detections_of, truth_of, truths_of
from tfcq.detection.average_precision import Detections
from tfcq.errors import UserError

BOX = np.array([[0.0, 0, 10, 10]])


@pytest.fixture
def rule():
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from tfcq.detection import coco_precision

    return coco_precision


@pytest.mark.parametrize("masks", [False, True])
def test_figures_are_pycocotools_with_crowds_and_nothing_is_printed(vectors, rule, masks, capfd):
    encode = rule.encoded_masks if masks else None
    truths, found = truths_of(vectors, False, True, encode), detections_of(vectors, encode)
    figures = rule.coco_figures(truths, found, 3, masks)
    expected = vectors["coco_segm" if masks else "coco_bbox"][:6]
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    assert figures == pytest.approx(
        {n: None if v < 0 else 100 * v for n, v in zip(names, expected, strict=True)}, abs=1e-10
    )
    assert capfd.readouterr() == ("", "")


def test_figures_of_a_class_are_those_of_its_boxes_alone(vectors, rule):
    truths, found = truths_of(vectors), detections_of(vectors)
    figures, by_class = rule.coco_figures_by_class(truths, found, 4)
    assert figures == rule.coco_figures(truths, found, 4)
    assert by_class[3] == dict.fromkeys(("AP", "AP50", "AP75"))
    for number in range(3):
        # A detection's class decides nothing about those of another.
        alone = rule.coco_figures([of_class(t, number) for t in truths], found, 4)
        assert by_class[number] == pytest.approx({name: alone[name] for name in by_class[number]})
    assert len({of["AP75"] for of in by_class[:3]}) == 3


def of_class(truth, number):
    """Returns the boxes of one class."""
    columns = {name: column for name, column in vars(truth).items() if column is not None}
    chosen = truth.classes == number
    return dataclasses.replace(truth, **{name: column[chosen] for name, column in columns.items()})


def one(boxes, scores=None):
    count = np.zeros(len(boxes), int)
    return Detections(np.array(boxes), np.array(scores or [0.9] * len(boxes)), count)


def test_one_detection_of_a_difficult_box_counts_neither_way(rule):
    boxes = np.concatenate([BOX, BOX + 20])
    truth = truth_of(boxes, difficult=[False, True])
    assert rule.coco_figures([truth], [one(boxes, [0.5, 0.9])], 1)["AP"] == pytest.approx(100)
    assert rule.coco_figures([truth], [one(boxes[:1])], 1)["AP"] == pytest.approx(100)
    plain = truth_of(boxes[:1])
    assert rule.coco_figures([plain], [one(boxes, [0.5, 0.9])], 1)["AP"] == pytest.approx(50)


def test_sizes_are_told_by_the_areas_of_the_objects(rule):
    truth = truth_of(BOX * 9, area=[40.0])
    figures = rule.coco_figures([truth], [one(BOX * 9)], 1)
    assert (figures["AP_small"], figures["AP_medium"]) == (pytest.approx(100), None)


def test_images_without_boxes_or_detections_are_taken(rule):
    nothing = truth_of([])
    truths = [truth_of(BOX), nothing]
    assert rule.coco_figures(truths, [one(BOX[:0]), one(BOX[:0])], 1)["AP"] == 0
    # What is found where there is nothing is wrong.
    assert rule.coco_figures(truths, [one(BOX, [0.5]), one(BOX)], 1)["AP50"] == pytest.approx(50)
    with pytest.raises(UserError, match="1 images have no box"):
        rule.coco_figures([nothing], [one(BOX)], 1)


def test_missing_masks_are_refused_and_a_missing_library_has_a_hint(rule, monkeypatch):
    truths = [truth_of(BOX)]
    with pytest.raises(UserError, match="1 boxes have no masks; allowed: a mask for each"):
        rule.coco_figures(truths, [one(BOX)], 1, masks=True)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match="install it with `pip install pycocotools`") as caught:
        rule.coco_figures(truths, [one(BOX)], 1)
    assert "\n" not in str(caught.value)
