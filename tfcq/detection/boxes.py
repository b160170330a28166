"""Boxes: their overlap, and how a box is coded as a change of another.

A box is (y1, x1, y2, x2) in pixels, as in `tf.image`: the corner of an image is (0, 0), its first
pixel reaches from 0 to 1, so that height is y2 - y1. All functions take float tensors.
"""

import math

import tensorflow as tf

# A coded box grows no further than from 16 pixels to 1000 (Faster R-CNN's code).
LARGEST_GROWTH = math.log(1000 / 16)
# Weights of changes in y, x, height and width: of region proposals, and of a box head.
PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# What torchvision adds so that nothing is divided by zero.
_EPSILON = 1e-7


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Returns the areas of boxes.

    Args:
        boxes: float [..., 4].

    Returns:
        float [...].
    """
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    return (y2 - y1) * (x2 - x1)


def pairwise_iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the intersection over union of every box with every other one.

    Args:
        boxes: float [..., N, 4].
        others: float [..., M, 4].

    Returns:
        float [..., N, M]; 0 where both boxes are without area.
    """
    rows, columns = boxes[..., :, tf.newaxis, :], others[..., tf.newaxis, :, :]
    common = _intersection(rows, columns)
    return tf.math.divide_no_nan(common, area(rows) + area(columns) - common)


def complete_iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the complete intersection over union of boxes with their counterparts.

    It also falls with the distance of the centres and with the difference of the shapes (Zheng et
    al., 2020); YOLOv4's loss is 1 minus this. As in the authors' code the weight of the shapes
    has no gradient.

    Args:
        boxes: float [..., 4].
        others: float [..., 4], or what broadcasts with `boxes`.

    Returns:
        float [...].
    """
    common = _intersection(boxes, others)
    overlap = common / (area(boxes) + area(others) - common + _EPSILON)
    around = tf.concat(
        [tf.minimum(boxes, others)[..., :2], tf.maximum(boxes, others)[..., 2:]], axis=-1
    )
    centres, sizes = _centres_and_sizes(boxes)
    other_centres, other_sizes = _centres_and_sizes(others)
    diagonal = tf.reduce_sum((around[..., 2:] - around[..., :2]) ** 2, axis=-1) + _EPSILON
    distance = tf.reduce_sum((centres - other_centres) ** 2, axis=-1)
    turn = _slope(sizes) - _slope(other_sizes)
    shapes = 4 / math.pi**2 * turn**2
    weight = tf.stop_gradient(shapes / (1 - overlap + shapes + _EPSILON))
    return overlap - distance / diagonal - weight * shapes


def encode(
    boxes: tf.Tensor, anchors: tf.Tensor, weights: tuple[float, ...] = PROPOSAL_WEIGHTS
) -> tf.Tensor:
    """Returns the changes that make boxes of anchors, as Faster R-CNN codes them.

    Args:
        boxes: float [..., 4].
        anchors: float [..., 4], each with an area.
        weights: of the changes in y, x, height and width.

    Returns:
        float [..., 4], changes of y, x, height and width. Of boxes without height or width they
        are infinite.
    """
    centres, sizes = _centres_and_sizes(boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    moved = (centres - anchor_centres) / anchor_sizes
    grown = tf.math.log(sizes / anchor_sizes)
    return tf.concat([moved, grown], axis=-1) * tf.constant(weights, boxes.dtype)


def decode(
    changes: tf.Tensor, anchors: tf.Tensor, weights: tuple[float, ...] = PROPOSAL_WEIGHTS
) -> tf.Tensor:
    """Returns the boxes that changes make of anchors: the inverse of `encode`.

    Args:
        changes: float [..., 4], changes of y, x, height and width.
        anchors: float [..., 4].
        weights: of the changes.

    Returns:
        float [..., 4]. No side grows by more than 1000 / 16.
    """
    changes = changes / tf.constant(weights, changes.dtype)
    centres, sizes = _centres_and_sizes(anchors)
    centres += changes[..., :2] * sizes
    half = sizes * tf.exp(tf.minimum(changes[..., 2:], LARGEST_GROWTH)) / 2
    return tf.concat([centres - half, centres + half], axis=-1)


def clip(boxes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Returns the parts of boxes that lie in their images.

    Args:
        boxes: float [..., N, 4].
        sizes: height and width of each image, [..., 2].

    Returns:
        float [..., N, 4].
    """
    most = tf.cast(tf.concat([sizes, sizes], axis=-1), boxes.dtype)[..., tf.newaxis, :]
    return tf.clip_by_value(boxes, 0.0, most)


def _intersection(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    corner = tf.maximum(boxes[..., :2], others[..., :2])
    sides = tf.maximum(tf.minimum(boxes[..., 2:], others[..., 2:]) - corner, 0.0)
    return sides[..., 0] * sides[..., 1]


def _centres_and_sizes(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def _slope(sizes: tf.Tensor) -> tf.Tensor:
    # atan(width / height), which has a gradient where the height is 0 too.
    return tf.math.atan2(sizes[..., 1], sizes[..., 0])
