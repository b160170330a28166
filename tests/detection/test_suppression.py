"""Non-maximum suppression of fixed sizes."""

import numpy as np
import tensorflow as tf

from tfcq.detection.suppression import suppressed


def test_what_is_left_is_torchvisions_class_by_class(vectors):
    boxes, scores = vectors["nms_boxes"][None], vectors["nms_scores"][None]
    found = suppressed(boxes, scores, most=20, iou_threshold=0.5, score_threshold=0.2)
    np.testing.assert_array_equal(found.classes[0], vectors["nms_kept_classes"])
    np.testing.assert_array_equal(found.boxes[0], vectors["nms_kept_boxes"])
    np.testing.assert_array_equal(found.scores[0], vectors["nms_kept_scores"])


def test_every_class_may_have_boxes_of_its_own(vectors):
    boxes, scores = vectors["nms_boxes"][None], vectors["nms_scores"][None]
    own = tf.tile(boxes[:, :, None], [1, 1, 3, 1])
    for one, other in zip(
        suppressed(boxes, scores, 20, 0.5), suppressed(own, scores, 20, 0.5), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_images_are_filled_up_to_one_size_in_graph_mode():
    boxes = tf.constant([[[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]] * 2)
    scores = tf.constant([[[0.9], [0.8], [0.7]], [[0.1], [0.0], [0.0]]])
    spec = tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None, 1])
    graph = tf.function(lambda b, s: suppressed(b, s, 4, 0.5, 0.05), input_signature=spec)
    found = graph(boxes, scores)
    np.testing.assert_array_equal(found.classes, [[0, 0, -1, -1], [0, -1, -1, -1]])
    np.testing.assert_allclose(found.scores, [[0.9, 0.7, 0, 0], [0.1, 0, 0, 0]])
    np.testing.assert_array_equal(found.boxes[0, 1:3], [[20, 20, 30, 30], [0, 0, 0, 0]])
