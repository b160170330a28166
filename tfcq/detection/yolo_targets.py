"""What YOLOv4's anchors mean, which of them learn from which box, and the losses of that."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfcq.detection.boxes import LARGEST_GROWTH, complete_iou
from tfcq.detection.matching import overlaps

# Those of the authors' yolov4.cfg. An anchor whose shape overlaps a box's by more learns from it.
_SHAPES_OVERLAP = 0.213
# Anchors that found a box so well need not say that there is none.
_IGNORED = 0.7
# How far the centres that a cell finds reach, in cells, level by level.
_REACHES = (1.2, 1.1, 1.05)
STRIDES = (8, 16, 32)
Shapes = Sequence[tuple[float, float]]


class Cells(NamedTuple):
    """The anchors of an image's cells, in the order of the network's outputs.

    Attributes:
        corners: the first corner of each one's cell in pixels, float [anchors, 2].
        strides: pixels to a cell, float [anchors, 1].
        reaches: how far centres reach, in cells, float [anchors, 1].
        shapes: height and width in pixels, float [anchors, 2].
    """

    corners: tf.Tensor
    strides: tf.Tensor
    reaches: tf.Tensor
    shapes: tf.Tensor


class Assigned(NamedTuple):
    """Which anchors learn from each box; several boxes may teach one anchor.

    Attributes:
        anchors: index among all anchors, int32 [batch, most, shapes]; 0 where there is none.
        there: whether it learns, bool [batch, most, shapes].
    """

    anchors: tf.Tensor
    there: tf.Tensor


def cells(size: tf.Tensor, shapes: Shapes) -> Cells:
    """Returns the anchors of an image's cells.

    Args:
        size: height and width of the image, int [2], multiples of the greatest stride.
        shapes: heights and widths of the anchors in pixels, as many of each level, finest first.
    """
    each = len(shapes) // len(STRIDES)
    found = []
    for level, (stride, reach) in enumerate(zip(STRIDES, _REACHES, strict=True)):
        rows, columns = (tf.range(size[axis] // stride) * stride for axis in (0, 1))
        corners = tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1)
        corners = tf.repeat(tf.cast(tf.reshape(corners, [-1, 2]), tf.float32), each, axis=0)
        own = tf.constant(shapes[level * each : (level + 1) * each], tf.float32)
        ones = tf.ones_like(corners[:, :1])
        own = tf.tile(own, [tf.shape(corners)[0] // each, 1])
        found.append((corners, stride * ones, reach * ones, own))
    return Cells(*(tf.concat(column, 0) for column in zip(*found, strict=True)))


def decoded(changes: tf.Tensor, of: Cells) -> tf.Tensor:
    """Returns the boxes that outputs make of anchors.

        centre = corner + stride (reach sigmoid(change) - (reach - 1) / 2)
        side = anchor's side exp(change)

    Args:
        changes: of y, x, height and width, float [..., anchors, 4].
        of: the anchors.

    Returns:
        float [..., anchors, 4]. No side grows by more than 1000 / 16.
    """
    within = of.reaches * tf.sigmoid(changes[..., :2]) - (of.reaches - 1) / 2
    centres = of.corners + of.strides * within
    half = of.shapes * tf.exp(tf.minimum(changes[..., 2:], LARGEST_GROWTH)) / 2
    return tf.concat([centres - half, centres + half], axis=-1)


def assigned(boxes: tf.Tensor, there: tf.Tensor, size: tf.Tensor, shapes: Shapes) -> Assigned:
    """Returns the anchors that learn from each box, in the cells that hold its centre.

    Of all levels' shapes it is the one that overlaps the box's own most, however little that is,
    and all that overlap it by more than 0.213; shapes overlap as boxes of one centre.

    Args:
        boxes: float [batch, most, 4].
        there: which boxes there are, bool [batch, most]; the others fill up.
        size: height and width of the images, int [2].
        shapes: as for `cells`.
    """
    each = len(shapes) // len(STRIDES)
    sides = (boxes[..., 2:] - boxes[..., :2])[..., tf.newaxis, :]
    own = tf.constant(shapes, tf.float32)
    common = tf.reduce_prod(tf.minimum(sides, own), axis=-1)
    around = tf.reduce_prod(sides, axis=-1) + tf.reduce_prod(own, axis=-1) - common
    overlap = common / around
    best = tf.one_hot(tf.argmax(overlap, axis=-1), len(shapes), True, False, dtype=tf.bool)
    learns = (best | (overlap > _SHAPES_OVERLAP)) & there[..., tf.newaxis]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    places, first = [], 0
    for stride in STRIDES:
        counts = size // stride
        # A centre on the far edge of the image belongs to its last cell.
        cell = tf.minimum(tf.cast(centres / stride, tf.int32), counts - 1)
        at = first + (cell[..., 0] * counts[1] + cell[..., 1]) * each
        places += [at + number for number in range(each)]
        first += counts[0] * counts[1] * each
    return Assigned(tf.where(learns, tf.stack(places, axis=-1), 0), learns)


def yolo_losses(
    outputs: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, size: tf.Tensor, shapes: Shapes
) -> dict[str, tf.Tensor]:
    """Returns the losses of a batch, each divided by how many anchors learn from a box in it.

    They are the cross-entropy of there being an object, over all anchors but those without one
    that found a box well nonetheless; 1 minus the complete intersection over union of boxes; and
    the cross-entropy of each class by itself.

    Args:
        outputs: float [batch, anchors, 5 + classes], from the network.
        boxes: float [batch, most, 4].
        classes: int [batch, most], -1 where there is no box.
        size: height and width of the images, int [2].
        shapes: as for `cells`.
    """
    found = decoded(outputs[..., :4], cells(size, shapes))
    learn = assigned(boxes, classes >= 0, size, shapes)
    weights = tf.cast(learn.there, tf.float32)
    count = tf.maximum(tf.reduce_sum(weights), 1.0)
    batch, most, _ = tf.unstack(tf.shape(learn.anchors))
    places = tf.reshape(learn.anchors, [batch, -1])
    teach = tf.reshape(weights, [batch, -1])
    rows = tf.broadcast_to(tf.range(batch)[:, tf.newaxis], tf.shape(places))
    sums = tf.scatter_nd(tf.stack([rows, places], axis=-1), teach, tf.shape(outputs)[:2])
    wanted = tf.minimum(sums, 1.0)
    nearest = overlaps(boxes, classes >= 0, found).best
    counts = tf.cast((wanted > 0) | (nearest <= _IGNORED), tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=outputs[..., 4])
    taught = tf.reshape(tf.gather(found, places, batch_dims=1), [batch, most, -1, 4])
    fit = complete_iou(taught, boxes[:, :, tf.newaxis])
    logits = tf.gather(outputs[..., 5:], places, batch_dims=1)
    labels = tf.repeat(tf.one_hot(classes, outputs.shape[-1] - 5), len(shapes), axis=1)
    of_class = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return {
        "objectness": tf.reduce_sum(counts * entropy) / count,
        "boxes": tf.reduce_sum(weights * (1 - fit)) / count,
        "classes": tf.reduce_sum(teach[..., tf.newaxis] * of_class) / count,
    }
