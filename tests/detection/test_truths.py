"""The boxes of a split as they are scored."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.digits import DigitsSource
from tfcq.detection.anchors import anchors
from tfcq.detection.average_precision import Detections, voc_figures
from tfcq.detection.boxes import clip, decode, encode, pairwise_iou
from tfcq.detection.matching import POSITIVE, matched
from tfcq.detection.suppression import suppressed
from tfcq.detection.truths import truths_of

PERFECT = {"AP": 100, "AP50": 100, "AP75": 100}


@pytest.fixture(scope="module")
def split():
    return ScenesSource(DigitsSource(), "scenes", counts={"train": 1, "test": 6}).split("test")


def perfect(truths):
    """Returns detections of just what is there."""
    return [Detections(t.boxes, np.ones(len(t.boxes)), t.classes, t.masks) for t in truths]


def test_what_is_there_is_found_without_a_fault(split):
    truths = truths_of(split)
    assert len(truths) == 6 and truths[0].masks is None
    assert voc_figures(truths, perfect(truths), 10) == pytest.approx(PERFECT)


def test_anchors_that_learnt_all_there_is_to_learn_find_every_box(split):
    # What a perfect proposal network would do: every part speaks of the same boxes.
    truths, places = truths_of(split), anchors(12, 12, 8, (16, 32, 64))
    most = max(len(truth.boxes) for truth in truths)
    padded = np.stack([np.pad(t.boxes, [[0, most - len(t.boxes)], [0, 0]]) for t in truths])
    boxes = tf.constant(padded)
    there = tf.constant([[place < len(t.boxes) for place in range(most)] for t in truths])
    iou = pairwise_iou(boxes, places)
    matches = matched(boxes, there, places, 0.3, 0.7, low_quality=True)
    learnt = tf.gather(boxes, matches.boxes, batch_dims=1)
    decoded = decode(encode(learnt, places), places)
    positive = tf.cast(matches.labels == POSITIVE, tf.float32)
    quality = positive * (0.5 + tf.reduce_max(iou, axis=1) / 2)
    kept = suppressed(clip(decoded, tf.fill([6, 2], 96)), quality[..., tf.newaxis], 40, 0.99, 0.1)
    found = [
        Detections(*(value.numpy() for value in (b[c >= 0], s[c >= 0], c[c >= 0])))
        for b, s, c in zip(*kept[:3], strict=True)
    ]
    one_class = [dataclasses.replace(t, classes=np.zeros_like(t.classes)) for t in truths]
    figures = voc_figures(one_class, found, 1)
    # A box that shares its best anchor with another one, which overlaps it more, is lost.
    assert figures["AP"] > 90 and figures["AP"] == pytest.approx(figures["AP50"], abs=2)


def test_masks_are_those_of_the_images(split):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    from tfcq.detection.coco_precision import coco_figures

    truths = truths_of(split, masks=True)
    figures = coco_figures(truths, perfect(truths), 10, masks=True)
    assert {name: figures[name] for name in PERFECT} == pytest.approx(PERFECT)
    first = next(split.records.map(split.decode).as_numpy_iterator())
    decoded = np.stack([coder.decode(mask) for mask in truths[0].masks])
    np.testing.assert_array_equal(decoded, first["masks"])
