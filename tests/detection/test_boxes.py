"""Boxes: overlaps, and boxes coded as changes of others."""

import numpy as np
import tensorflow as tf

from tfcq.detection import boxes as rule


def some_boxes(count=50, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    far = corner + rng.uniform(1, 30, (count, 2))
    return tf.constant(np.concatenate([corner, far], axis=1), tf.float32)


def test_overlap_is_torchvisions(vectors):
    found = rule.pairwise_iou(vectors["boxes"], vectors["others"])
    np.testing.assert_allclose(found, vectors["iou"], atol=1e-6)
    assert vectors["iou"].max() == 1 and vectors["iou"].min() == 0


def test_overlap_of_boxes_without_area_is_zero():
    empty = tf.zeros([2, 4])
    np.testing.assert_array_equal(rule.pairwise_iou(empty, empty), np.zeros((2, 2)))


def test_complete_iou_and_its_gradient_are_torchvisions(vectors):
    given = tf.constant(vectors["boxes"])
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = rule.complete_iou(given, tf.constant(vectors["others"]))
    np.testing.assert_allclose(found, vectors["complete_iou"], atol=2e-6)
    # The first two boxes are equal: there every library chooses a slope of its own.
    gradient = tape.gradient(found, given)[1:]
    np.testing.assert_allclose(gradient, vectors["complete_iou_gradient"][1:], atol=2e-6)


def test_coding_is_detectron2s_and_growth_is_limited(vectors):
    others, weights = tf.constant(vectors["others"]), rule.HEAD_WEIGHTS
    coded = rule.encode(tf.constant(vectors["boxes"]), others, weights)
    np.testing.assert_allclose(coded, vectors["coded"], rtol=1e-5, atol=2e-6)
    decoded = rule.decode(tf.constant(vectors["changes"]), others, weights)
    np.testing.assert_allclose(decoded, vectors["decoded"], rtol=1e-5, atol=1e-4)
    grown = (decoded[0, 2] - decoded[0, 0]) / (others[0, 2] - others[0, 0])
    np.testing.assert_allclose(grown, 1000 / 16, rtol=1e-5)


def test_decoding_undoes_coding():
    boxes, anchors = some_boxes(), some_boxes(seed=1)
    for weights in (rule.PROPOSAL_WEIGHTS, rule.HEAD_WEIGHTS):
        coded = rule.encode(boxes, anchors, weights)
        np.testing.assert_allclose(rule.decode(coded, anchors, weights), boxes, atol=1e-4)


def test_clipped_boxes_lie_in_their_own_image():
    boxes = tf.constant([[[-5.0, 2, 70, 30]], [[-5.0, 2, 70, 30]]])
    found = rule.clip(boxes, tf.constant([[60, 20], [10, 40]]))
    np.testing.assert_array_equal(found, [[[0, 2, 60, 20]], [[0, 2, 10, 30]]])
    np.testing.assert_array_equal(rule.area(found), [[60 * 18], [10 * 28]])
