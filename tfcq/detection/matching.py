"""Which anchor or proposal learns from which box, and which of them a step looks at."""

from typing import NamedTuple

import tensorflow as tf

from tfcq.detection.boxes import pairwise_iou
from tfcq.quantization.noise import uniform

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
    """What each anchor learns from.

    Attributes:
        boxes: index of the box that it overlaps most, int32 [..., anchors]; 0 without any box.
        labels: `POSITIVE`, `NEGATIVE` or `IGNORED`, int32 [..., anchors].
    """

    boxes: tf.Tensor
    labels: tf.Tensor


class Sample(NamedTuple):
    """Which anchors a step looks at, positive ones first.

    Attributes:
        indices: int32 [batch, size].
        there: whether an index counts, bool [batch, size]; the others fill up.
    """

    indices: tf.Tensor
    there: tf.Tensor


class Overlaps(NamedTuple):
    """How boxes lie on anchors.

    Attributes:
        best: overlap of each anchor with the box that it overlaps most, float [..., anchors]; -1
            without any box.
        boxes: index of that box, the first of several, int32 [..., anchors]; 0 without any box.
        chosen: whether an anchor is among those that one of the boxes overlaps most, bool
            [..., anchors].
    """

    best: tf.Tensor
    boxes: tf.Tensor
    chosen: tf.Tensor


def overlaps(boxes: tf.Tensor, valid: tf.Tensor, anchors: tf.Tensor) -> Overlaps:
    """Returns how boxes lie on anchors, without a gradient.

    Box by box: the overlaps of all at once take a gigabyte an image of half a million anchors.

    Args:
        boxes: float [..., boxes, 4].
        valid: which of them there are, bool [..., boxes]; the others fill up.
        anchors: float [..., anchors, 4], or [anchors, 4].
    """
    boxes, anchors = tf.stop_gradient(boxes), tf.stop_gradient(anchors)
    shape = tf.concat([tf.shape(boxes)[:-2], tf.shape(anchors)[-2:-1]], axis=0)
    numbers = tf.range(1, tf.shape(valid)[-1] + 1)
    count = tf.reduce_max(tf.where(valid, numbers, 0))

    def one_more(number: tf.Tensor, found: Overlaps) -> tuple[tf.Tensor, Overlaps]:
        box = tf.gather(boxes, [number], axis=-2)
        own = tf.reshape(pairwise_iou(box, anchors), shape)
        own = tf.where(tf.gather(valid, [number], axis=-1), own, -1.0)
        highest = tf.reduce_max(own, axis=-1, keepdims=True)
        nearer = own > found.best
        return number + 1, Overlaps(
            tf.where(nearer, own, found.best),
            tf.where(nearer, number, found.boxes),
            found.chosen | ((own == highest) & (highest > 0)),
        )

    none = Overlaps(tf.fill(shape, -1.0), tf.zeros(shape, tf.int32), tf.zeros(shape, tf.bool))
    _, found = tf.while_loop(
        lambda number, _: number < count, one_more, (tf.constant(0), none), parallel_iterations=1
    )
    return found


def matched(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    anchors: tf.Tensor,
    low: float,
    high: float,
    low_quality: bool = False,
) -> Matches:
    """Matches anchors with boxes by their overlap, as detectron2's Matcher.

    Args:
        boxes: float [..., boxes, 4].
        valid: which boxes there are, bool [..., boxes]; the others fill up.
        anchors: float [..., anchors, 4], or [anchors, 4].
        low: an anchor that overlaps every box by less is negative.
        high: one that overlaps its box by this or more is positive; what lies between is ignored.
        low_quality: whether of each box the anchors that overlap it most are positive however
            little that is. They learn from the box that they overlap most, which may be another.
            A box that overlaps no anchor at all makes none positive (all, in detectron2).
    """
    found = overlaps(boxes, valid, anchors)
    between = tf.where(found.best >= low, IGNORED, NEGATIVE)
    labels = tf.where(found.best >= high, POSITIVE, between)
    if low_quality:
        labels = tf.where(found.chosen, POSITIVE, labels)
    return Matches(found.boxes, labels)


def sampled(labels: tf.Tensor, size: int, positive_share: float, seed: tf.Tensor) -> Sample:
    """Draws anchors: positive ones up to a share, negative ones for the rest.

    Args:
        labels: `POSITIVE`, `NEGATIVE` or `IGNORED`, int32 [batch, anchors].
        size: how many are drawn of an image; fewer where there are fewer.
        positive_share: greatest share of positive ones, 0 to 1.
        seed: int [2]; the same seed draws the same.
    """
    draws = uniform(tf.shape(labels), seed)
    # What is filled up with takes no place of an anchor that is there.
    fill = tf.maximum(0, size - tf.shape(labels)[1])
    draws = tf.pad(draws, [[0, 0], [0, fill]])
    labels = tf.pad(labels, [[0, 0], [0, fill]], constant_values=IGNORED)
    positives, positive = _drawn(draws, labels == POSITIVE, int(size * positive_share))
    negatives, negative = _drawn(draws, labels == NEGATIVE, size)
    room = size - tf.reduce_sum(tf.cast(positive, tf.int32), axis=1, keepdims=True)
    negative &= tf.range(size) < room
    indices, there = tf.concat([positives, negatives], 1), tf.concat([positive, negative], 1)
    indices = tf.where(there, indices, 0)
    order = tf.argsort(tf.cast(~there, tf.int32), stable=True)[:, :size]
    return Sample(tf.gather(indices, order, batch_dims=1), tf.gather(there, order, batch_dims=1))


def _drawn(draws: tf.Tensor, chosen: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the chosen ones with the greatest draws, and which of the indices are chosen."""
    values, indices = tf.math.top_k(tf.where(chosen, draws, -1.0), count)
    return indices, values >= 0
