"""Which anchor learns from which box, and which of them a step looks at."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection.boxes import pairwise_iou
from tfcq.detection.matching import IGNORED, NEGATIVE, POSITIVE, matched, overlaps, sampled


@pytest.mark.parametrize(
    ("name", "low", "high", "low_quality"),
    [("proposals", 0.3, 0.7, True), ("head", 0.5, 0.5, False)],
)
def test_matches_are_detectron2s_however_many_boxes_fill_up(vectors, name, low, high, low_quality):
    boxes = np.concatenate([vectors["matched_boxes"], [[0, 0, 40, 40]] * 2]).astype("f4")
    there = tf.constant([True] * 3 + [False] * 2)
    anchors = tf.constant(vectors["anchors"], tf.float32)
    found = matched(tf.constant(boxes), there, anchors, low, high, low_quality)
    np.testing.assert_array_equal(found.labels, vectors[f"{name}_labels"])
    np.testing.assert_array_equal(found.boxes, vectors[f"{name}_matches"])
    assert POSITIVE in found.labels.numpy()


def some_boxes(*shape):
    corners = np.random.default_rng(shape).integers(0, 40, (*shape, 2))
    sides = np.random.default_rng(shape[::-1]).integers(4, 30, (*shape, 2))
    return np.concatenate([corners, corners + sides], axis=-1).astype("float32")


def test_boxes_one_by_one_are_all_at_once_to_the_last_bit(monkeypatch):
    counts = []
    monkeypatch.setattr(
        "tfcq.detection.matching.pairwise_iou",
        lambda boxes, others: [counts.append(boxes.shape[-2]), pairwise_iou(boxes, others)][1],
    )
    boxes, anchors = some_boxes(3, 7), some_boxes(3, 400)
    # A box twice, of which the first counts, and one in the middle that fills up.
    boxes[:, 5] = boxes[:, 1]
    valid = np.ones((3, 7), bool)
    valid[:, 3] = valid[0, 6] = valid[1] = False
    for others in (anchors, anchors[0]):
        # As it is traced: the memory of a step is that of one box.
        found = tf.function(overlaps)(boxes, tf.constant(valid), others)
        iou = np.where(valid[..., None], pairwise_iou(boxes, others), -1).astype("float32")
        highest = iou.max(axis=-1, keepdims=True)
        np.testing.assert_array_equal(found.best, iou.max(axis=-2))
        np.testing.assert_array_equal(found.boxes, iou.argmax(axis=-2))
        np.testing.assert_array_equal(found.chosen, ((iou == highest) & (highest > 0)).any(axis=-2))
    assert counts == [1, 1]


def test_overlaps_have_no_gradient():
    boxes = tf.Variable(some_boxes(2, 3))
    with tf.GradientTape() as tape:
        best = overlaps(boxes, tf.ones((2, 3), tf.bool), 2 * boxes).best
    assert tape.gradient(best, boxes) is None


def test_without_a_box_all_anchors_are_negative():
    found = matched(some_boxes(2, 3), tf.zeros([2, 3], tf.bool), some_boxes(2, 3), 0.3, 0.7, True)
    assert set(found.labels.numpy().ravel()) == {NEGATIVE}
    assert found.boxes.numpy().max() == 0


def test_box_that_overlaps_no_anchor_makes_none_positive():
    boxes = tf.constant([[50.0, 50, 60, 60], [0, 0, 10, 10]])
    anchors = tf.constant([[0.0, 9, 10, 19], [0, 8, 10, 18], [8, 0, 18, 10]])
    found = matched(boxes, tf.constant([True, True]), anchors, 0.3, 0.7, True)
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
