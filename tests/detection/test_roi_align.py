"""Regions of feature maps at one size."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection.roi_align import level_of, pyramid_align, roi_align


def test_regions_and_their_gradient_are_torchvisions(vectors):
    features = tf.constant(vectors["features"])
    with tf.GradientTape() as tape:
        tape.watch(features)
        found = roi_align(features, vectors["regions"], 3, 8)
    np.testing.assert_allclose(found, vectors["pooled"], atol=1e-5)
    gradient = tape.gradient(found, features, vectors["pooled_upstream"])
    np.testing.assert_allclose(gradient, vectors["features_gradient"], atol=2e-5)
    # Regions reach beyond the map on all sides.
    assert vectors["regions"].min() < -20 and vectors["regions"].max() > 72


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_cells_of_a_slope_are_its_values_at_their_middles(samples):
    rows, columns = np.meshgrid(np.arange(10.0), np.arange(12.0), indexing="ij")
    slope = tf.constant(3 * rows - 2 * columns, tf.float32)[None, :, :, None]
    found = roi_align(slope, tf.constant([[[8.0, 4, 24, 28]]]), 4, 4, samples)[0, 0, ..., 0]
    y = 8 / 4 + (np.arange(4) + 0.5) * 16 / 4 / 4 - 0.5
    x = 4 / 4 + (np.arange(4) + 0.5) * 24 / 4 / 4 - 0.5
    np.testing.assert_allclose(found, 3 * y[:, None] - 2 * x, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_of_half_precision_stay_so(vectors, dtype):
    features = tf.cast(vectors["features"], dtype)
    found = roi_align(features, vectors["regions"], 3, 8)
    assert found.dtype == dtype
    np.testing.assert_allclose(tf.cast(found, tf.float32), vectors["pooled"], atol=0.03)


def test_boxes_that_are_not_finite_end_in_no_error():
    boxes = tf.constant([[[np.nan] * 4, [0, 0, np.inf, -np.inf], [0, 0, 1e30, 1e30]]], tf.float32)
    levels = [tf.ones([1, 8, 8, 1]), tf.ones([1, 4, 4, 1])]
    assert np.isfinite(pyramid_align(levels, boxes, 2, (8, 16))).all()


def test_levels_are_detectron2s(vectors):
    found = level_of(tf.constant(vectors["level_boxes"]), (4, 8, 16, 32))
    np.testing.assert_array_equal(found, vectors["levels"])


def test_pyramid_reads_each_region_from_its_own_level_in_graph_mode():
    rng = np.random.default_rng(0)
    strides = (4, 8, 16)
    levels = [tf.constant(rng.normal(size=(2, 64 // s, 64 // s, 5)), tf.float32) for s in strides]
    corner = rng.uniform(0, 20, (2, 9, 2))
    far = corner + rng.uniform(5, 400, (2, 9, 2))
    boxes = tf.constant(np.concatenate([corner, far], axis=2), tf.float32)
    found = tf.function(lambda *levels: pyramid_align(levels, boxes, 3, strides))(*levels)
    level = level_of(boxes, strides).numpy()
    assert set(level.ravel()) == {0, 1, 2}
    for number, (features, stride) in enumerate(zip(levels, strides, strict=True)):
        expected = roi_align(features, boxes, 3, stride).numpy()
        chosen = level == number
        np.testing.assert_allclose(found.numpy()[chosen], expected[chosen], atol=1e-6)
