"""Average precision as VOC scores it."""

import numpy as np
import pytest

from tests.detection.scored import detections_of, truth_of, truths_of
from tfcq.detection import average_precision
from tfcq.detection.average_precision import (
    Detections,
    voc_average_precision,
    voc_figures,
    voc_figures_by_class,
)
from tfcq.errors import UserError

ONE = [[0.0, 0, 10, 10]]


def precision(truth, boxes, scores, form="area"):
    """Returns the precision of detections of one class in one image at an overlap of 0.5."""
    found = Detections(np.float32(boxes), np.array(scores), np.zeros(len(boxes), int))
    return voc_average_precision([truth], [found], 1, form, [0.5])[0, 0]


@pytest.mark.parametrize("form", average_precision.FORMS)
def test_both_forms_are_detectron2s_with_difficult_boxes(vectors, form):
    truths, found = truths_of(vectors, crowd=False), detections_of(vectors)
    expected = vectors[f"voc_{form}"]
    np.testing.assert_allclose(voc_average_precision(truths, found, 3, form), expected, atol=1e-12)
    assert expected.max() > 0.5 and any(truth.difficult.any() for truth in truths)
    figures, by_class = voc_figures_by_class(truths, found, 3, form)
    assert voc_figures(truths, found, 3, form) == figures
    for of_class, one in zip(by_class, 100 * expected.T, strict=True):
        assert of_class == pytest.approx({"AP": one.mean(), "AP50": one[0], "AP75": one[5]})
    means = 100 * expected.mean(axis=1)
    assert figures == pytest.approx({"AP": means.mean(), "AP50": means[0], "AP75": means[5]})


def test_detections_of_difficult_boxes_count_neither_way():
    truth = truth_of(ONE + [[20.0, 20, 30, 30]], difficult=[False, True])
    both = ONE + [[20, 20, 30, 30], [20, 20, 30, 29]]
    assert precision(truth, both, [0.5, 0.9, 0.8]) == 1
    assert precision(truth, [[20, 20, 30, 30]], [0.9]) == 0


def test_detections_inside_a_crowd_count_neither_way_as_in_coco():
    truth = truth_of(ONE + [[20.0, 20, 60, 60]], crowd=[False, True])
    inside = [[20.0 + i, 20, 25 + i, 25] for i in range(9)]
    assert precision(truth, ONE + inside, [0.1, *np.linspace(0.5, 0.9, 9)]) == 1
    outside = [[60.0 + i, 20, 65 + i, 25] for i in range(9)]
    assert precision(truth, ONE + outside, [0.1, *np.linspace(0.5, 0.9, 9)]) == pytest.approx(0.1)


def test_second_detection_of_a_box_is_wrong():
    truth = truth_of(ONE + [[20.0, 20, 30, 30]])
    twice = ONE + [[0, 0, 10, 9], [20, 20, 30, 30]]
    assert precision(truth, twice, [0.9, 0.8, 0.7]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert precision(truth, twice, [0.9, 0.8, 0.7], "points") == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_classes_without_a_box_are_left_out_and_no_box_at_all_is_refused():
    truth = [truth_of(ONE, [1])]
    found = [Detections(np.array(ONE * 2), np.array([0.9, 0.8]), np.array([1, 0]))]
    assert np.isnan(voc_average_precision(truth, found, 2)).tolist() == [[True, False]] * 10
    assert voc_figures(truth, found, 2) == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    none = dict.fromkeys(("AP", "AP50", "AP75"))
    assert voc_figures_by_class(truth, found, 2)[1][0] == none
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))]
    assert voc_figures(truth, nothing, 2) == {"AP": 0, "AP50": 0, "AP75": 0}
    with pytest.raises(UserError, match="1 images have no box that must be found"):
        voc_figures([truth_of(ONE, difficult=True)], found, 2)
    with pytest.raises(UserError, match="'point'; allowed: area, points. Did you mean 'points'"):
        voc_average_precision(truth, found, 2, "point")
