"""Masks as large as their boxes, seen in other regions."""

import numpy as np
import tensorflow as tf

from tfcq.detection.masks import masks_in


def test_masks_are_pasted_as_in_detectron2(vectors):
    image = tf.constant([0.0, 0, 20, 24])
    found = masks_in(vectors["masks"], tf.constant(vectors["mask_boxes"]), image, 20, 24)
    np.testing.assert_allclose(found, vectors["pasted"], atol=1e-5)


def test_mask_of_its_own_box_is_itself_and_of_a_part_the_part():
    masks = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 8)), tf.float32)
    boxes = tf.constant([[3.0, 5, 11, 29], [0, 0, 80, 40]])
    np.testing.assert_allclose(masks_in(masks, boxes, boxes, 8, 8), masks, atol=1e-5)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    upper = tf.concat([boxes[:, :2], middle], axis=1)
    np.testing.assert_allclose(masks_in(masks, boxes, upper, 4, 4), masks[:, :4, :4], atol=1e-5)


def test_a_full_mask_ends_where_its_box_ends():
    masks, boxes = tf.ones([2, 28, 28]), tf.constant([[4.0, 6, 16, 20], [5, 5, 5, 5]])
    found = masks_in(masks, boxes, tf.constant([0.0, 0, 24, 30]), 24, 30).numpy() >= 0.5
    expected = np.zeros((24, 30), bool)
    expected[4:16, 6:20] = True
    np.testing.assert_array_equal(found[0], expected)
    assert not found[1].any()
