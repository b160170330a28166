"""Masks as large as their boxes, seen in other regions: targets of proposals, masks of images."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.detection.coco_precision import encoded_masks

# Boxes may be without height or width once they are cut at the image.
_SMALLEST = 1e-3
# Of masks as large as their image, as many at once.
_POINTS = 2**22


def masks_in(
    masks: tf.Tensor, boxes: tf.Tensor, regions: tf.Tensor, height: int, width: int
) -> tf.Tensor:
    """Returns each mask as it is seen in a region, at a size.

    Region by region, boxes of a batch give the targets of proposals:
    `masks_in(masks, boxes, proposals, 28, 28) >= 0.5`. With the image as every region they are
    pasted into it, as in detectron2: `masks_in(masks, boxes, image, height, width) >= 0.5`.

    Args:
        masks: float [N, side, side], 0 to 1, each as large as its box.
        boxes: float [N, 4].
        regions: float [N, 4], or one region for all, [4].
        height: points of the result, downwards.
        width: points of the result, to the right.

    Returns:
        float [N, height, width] at the middles of the points, 0 outside of the box.
    """
    side = tf.cast(tf.shape(masks)[1], boxes.dtype)
    regions = tf.broadcast_to(regions, tf.shape(boxes))
    step = (regions[:, 2:] - regions[:, :2]) / tf.constant([height, width], boxes.dtype)
    sizes = tf.maximum(boxes[:, 2:] - boxes[:, :2], _SMALLEST)
    # Around each mask stands a 0, and values stand in the middle of theirs.
    first, last = (
        ((points - boxes[:, :2]) / sizes * side + 0.5) / (side + 1)
        for points in (regions[:, :2] + step / 2, regions[:, 2:] - step / 2)
    )
    padded = tf.pad(masks, [[0, 0], [1, 1], [1, 1]])[..., tf.newaxis]
    points = tf.concat([first, last], axis=1)
    of_mask = tf.range(tf.shape(masks)[0])
    return tf.image.crop_and_resize(padded, points, of_mask, [height, width])[..., 0]


def pasted(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
    """Returns masks in their image, as run lengths, a few at a time.

    Args:
        masks: as for `masks_in`.
        boxes: in pixels of the image, float [N, 4].
        height: of the image.
        width: of the image.

    Raises:
        UserError: pycocotools is not installed.
    """
    image = tf.constant([0, 0, height, width], tf.float32)
    encoded, step = [], max(1, _POINTS // (height * width))
    for first in range(0, len(masks), step):
        chosen = slice(first, first + step)
        several, own = tf.constant(masks[chosen]), tf.constant(boxes[chosen])
        seen = masks_in(several, own, image, height, width)
        encoded += encoded_masks(seen.numpy() >= 0.5)
    return encoded
