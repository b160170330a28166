"""Of boxes that lie on each other, the best alone: non-maximum suppression of fixed sizes."""

from typing import NamedTuple

import tensorflow as tf


class Kept(NamedTuple):
    """What is left of the boxes of each image, best first, filled up to `most`.

    Attributes:
        boxes: float [batch, most, 4]; 0 where there is none.
        scores: float [batch, most]; 0 where there is none.
        classes: int32 [batch, most]; -1 where there is none.
        masks: of detectors that have them, float [batch, most, side, side], 0 to 1, each as large
            as its box; 0 where there is none.
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    masks: tf.Tensor | None = None


def suppressed(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    most: int,
    iou_threshold: float,
    score_threshold: float = float("-inf"),
) -> Kept:
    """Returns the best boxes of each image, without those that lie on a better one of their class.

    Args:
        boxes: float [batch, N, 4], or of each class its own: [batch, N, classes, 4].
        scores: float [batch, N, classes].
        most: boxes that are kept of an image, of all classes together.
        iou_threshold: a box that overlaps a better one by more is left out.
        score_threshold: a box whose score is not above is left out.
    """
    if len(boxes.shape) == 3:
        boxes = boxes[:, :, tf.newaxis]
    found, values, classes, counts = tf.image.combined_non_max_suppression(
        boxes, scores, most, most, iou_threshold, score_threshold, clip_boxes=False
    )
    there = tf.sequence_mask(counts, most)
    return Kept(found, values, tf.where(there, tf.cast(classes, tf.int32), -1))
