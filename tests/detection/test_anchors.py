"""Anchors of feature maps."""

import numpy as np
import tensorflow as tf

from tfcq.detection.anchors import anchors


def test_anchors_are_detectron2s_in_its_order(vectors):
    found = anchors(3, 4, 8, (8, 20), (0.5, 1.0, 2.0))
    np.testing.assert_allclose(found, vectors["anchors"], atol=1e-5)


def test_maps_of_any_size_are_taken_in_graph_mode(vectors):
    graph = tf.function(lambda h, w: anchors(h, w, 8, (8, 20)))
    found = graph(tf.constant(3), tf.constant(4))
    np.testing.assert_allclose(found, vectors["anchors"], atol=1e-5)


def test_areas_and_shapes_are_those_asked_for():
    y1, x1, y2, x2 = np.transpose(anchors(1, 1, 16, (32, 64), (0.5, 3.0)))
    np.testing.assert_allclose(np.sqrt((y2 - y1) * (x2 - x1)), [32, 32, 64, 64], rtol=1e-6)
    np.testing.assert_allclose((y2 - y1) / (x2 - x1), [0.5, 3, 0.5, 3], rtol=1e-6)
    np.testing.assert_array_equal([y1 + y2, x1 + x2], np.zeros((2, 4)))
