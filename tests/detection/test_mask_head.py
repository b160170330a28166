"""The head of masks: its network, its loss, and where masks go."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection import masks as room
from tfcq.detection.mask_head import mask_head, mask_loss, of_class, transposed_convolution
from tfcq.detection.masks import masks_in, pasted


def test_upsampling_is_keras_transposed_convolution():
    inputs = keras.Input((3, 5, 4))
    ours = keras.Model(inputs, transposed_convolution(inputs, 2, "up"))
    theirs = keras.layers.Conv2DTranspose(2, 2, 2, activation="relu")
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    theirs.build(x.shape)
    kernel, bias = ours.get_layer("up").get_weights()
    bias += np.tile([0.5, -0.5], 4).astype("float32")
    ours.get_layer("up").set_weights([kernel, bias])
    # [1, 1, channels, 2 * 2 * width] -> [2, 2, width, channels]
    theirs.set_weights([kernel.reshape(4, 2, 2, 2).transpose(1, 2, 3, 0), bias[:2]])
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)
    assert ours(x).shape == (2, 6, 10, 2) and np.any(ours(x))


def test_the_head_is_detectron2s_and_twice_as_fine():
    head = mask_head(6, 4, 3, cells=5)
    assert head.output_shape == (None, 10, 10, 3)
    kernels = [tuple(layer.kernel.shape) for layer in head.layers if hasattr(layer, "kernel")]
    assert kernels == [(3, 3, 6, 4), *[(3, 3, 4, 4)] * 3, (1, 1, 4, 16), (1, 1, 4, 3)]


def test_the_mask_of_a_class_is_its_own():
    logits = tf.random.stateless_normal((4, 2, 2, 3), [0, 0])
    classes = [2, 0, 1, 2]
    found = of_class(logits, tf.constant(classes)).numpy()
    for region, number in enumerate(classes):
        np.testing.assert_array_equal(found[region], logits[region, ..., number])


def test_loss_is_the_cross_entropy_of_points_of_regions_that_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 4)).astype("float32")
    masks = (rng.uniform(size=(3, 12, 12)) > 0.5).astype("float32")
    boxes = np.array([[0, 0, 24, 24], [4, 4, 20, 36], [0, 0, 8, 8]], "float32")
    regions = np.array([[8, 8, 16, 16], [4, 4, 20, 36], [2, 2, 6, 6]], "float32")
    found = mask_loss(logits, masks, boxes, regions, tf.constant([True, True, False]))
    total = 0.0
    # The middle point by point, and of the whole the middle of each nine points.
    targets = [masks[0, 4:8, 4:8], masks[1, 1::3, 1::3]]
    for of_region, target in zip(logits, targets, strict=False):
        for logit, wanted in zip(of_region.ravel(), target.ravel(), strict=True):
            share = 1 / (1 + np.exp(-logit))
            total -= np.log(share if wanted else 1 - share)
    np.testing.assert_allclose(found, total / 2 / 16, rtol=1e-5)
    none = mask_loss(logits, masks, boxes, regions, tf.constant([False] * 3))
    assert none == 0


@pytest.mark.parametrize("masks_at_once", [1, 2, 5])
def test_pasted_masks_are_those_of_the_image(monkeypatch, masks_at_once):
    counts, encoded = [], room.encoded_masks
    monkeypatch.setattr(room, "_POINTS", masks_at_once * 20 * 31)
    monkeypatch.setattr(room, "encoded_masks", lambda m: [counts.append(len(m)), encoded(m)][1])
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(3, 6, 6)).astype("float32")
    boxes = np.array([[3, 5, 15, 29], [-4, 8, 40, 33.5], [0, 0, 7, 9]], "float32")
    found = coder.decode(pasted(masks, boxes, 20, 31))
    expected = masks_in(masks, boxes, tf.constant([0.0, 0, 20, 31]), 20, 31).numpy() >= 0.5
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), expected)
    assert max(counts) == min(masks_at_once, 3)
    assert pasted(masks[:0], boxes[:0], 20, 31) == []
