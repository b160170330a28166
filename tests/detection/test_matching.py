"""Which anchor learns from which box, and which of them a step looks at."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection.boxes import pairwise_iou
from tfcq.detection.matching import IGNORED, NEGATIVE, POSITIVE, matched, sampled


@pytest.mark.parametrize(
    ("name", "low", "high", "low_quality"),
    [("proposals", 0.3, 0.7, True), ("head", 0.5, 0.5, False)],
)
def test_matches_are_detectron2s_however_many_boxes_fill_up(vectors, name, low, high, low_quality):
    boxes = np.concatenate([vectors["matched_boxes"], [[0, 0, 40, 40]] * 2]).astype("f4")
    iou = pairwise_iou(boxes, vectors["anchors"])
    there = tf.constant([True] * 3 + [False] * 2)
    found = matched(iou, there, low, high, low_quality)
    np.testing.assert_array_equal(found.labels, vectors[f"{name}_labels"])
    np.testing.assert_array_equal(found.boxes, vectors[f"{name}_matches"])
    assert POSITIVE in found.labels.numpy()


def test_without_a_box_all_anchors_are_negative():
    found = matched(tf.ones([2, 3, 5]), tf.zeros([2, 3], tf.bool), 0.3, 0.7, True)
    assert set(found.labels.numpy().ravel()) == {NEGATIVE}
    assert found.boxes.numpy().max() == 0


def test_box_that_overlaps_no_anchor_makes_none_positive():
    iou = tf.constant([[0.0, 0.0, 0.0], [0.1, 0.2, 0.2]])
    found = matched(iou, tf.constant([True, True]), 0.3, 0.7, True)
    np.testing.assert_array_equal(found.labels, [NEGATIVE, POSITIVE, POSITIVE])


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(30, 60, (4, 12)), (2, 60, (2, 14)), (0, 60, (0, 16)), (30, 5, (4, 5)), (1, 1, (1, 1))],
)
def test_positives_up_to_a_share_and_negatives_for_the_rest(positives, negatives, expected):
    labels = [POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * 3
    rng = np.random.default_rng(0)
    labels = tf.constant(np.stack([rng.permutation(labels) for _ in range(2)]), tf.int32)
    found = sampled(labels, 16, 0.25, tf.constant([1, 2]))
    assert found.indices.shape == found.there.shape == (2, 16)
    # What fills up can be looked up, too.
    assert found.indices.numpy().max() < len(labels[0])
    for image in range(2):
        chosen = found.indices[image].numpy()[found.there[image].numpy()]
        kinds = labels[image].numpy()[chosen]
        assert (sum(kinds == POSITIVE), sum(kinds == NEGATIVE)) == expected
        assert len(set(chosen)) == len(chosen) == sum(expected)
        assert sorted(kinds, reverse=True) == kinds.tolist()


def test_draws_are_a_function_of_the_seed_and_uniform():
    labels = tf.constant([[POSITIVE] * 8 + [NEGATIVE] * 24], tf.int32)
    draw = tf.function(lambda seed: sampled(labels, 8, 0.5, seed).indices[0])
    found = np.stack([draw(tf.constant([7, step])) for step in range(250)])
    np.testing.assert_array_equal(found[3], draw(tf.constant([7, 3])))
    counts = np.bincount(found.ravel(), minlength=32) / 250
    np.testing.assert_allclose(counts[:8], 4 / 8, atol=0.12)
    np.testing.assert_allclose(counts[8:], 4 / 24, atol=0.12)
