"""The head that classifies regions and moves their boxes (Fast R-CNN)."""

import keras
import tensorflow as tf
from keras import layers

from tfcq.detection.boxes import HEAD_WEIGHTS, clip, decode, encode
from tfcq.detection.matching import POSITIVE, Sample, matched, sampled
from tfcq.detection.suppression import Kept, suppressed

# detectron2's.
_OVERLAP = 0.5
_POSITIVE_SHARE = 0.25
_SCORE, _IOU, _MOST = 0.05, 0.5, 100


def with_box_outputs(body: keras.Model, classes: int, name: str = "box_head") -> keras.Model:
    """Returns a network with the outputs of a box head behind.

    Args:
        body: from regions to features [regions, width].
        classes: number of classes.
        name: its name.

    Returns:
        A functional model to logits [regions, classes + 1], of which the last is of no object, and
        changes [regions, classes * 4], of each class its own.
    """
    logits, changes = (
        layers.Dense(
            width, kernel_initializer=keras.initializers.RandomNormal(stddev=deviation), name=of
        )(body.output)
        for width, deviation, of in (
            (classes + 1, 0.01, "box_classes"),
            (4 * classes, 0.001, "box_changes"),
        )
    )
    return keras.Model(body.input, [logits, changes], name=name)


class Regions:
    """Regions that a step learns from, with the box and class of each.

    Attributes:
        boxes: float [batch, size, 4].
        there: bool [batch, size], False for what fills up.
        positive: bool [batch, size], whether an object is learned.
        of_box: int [batch, size], which box of its image.
        classes: int [batch, size]; the number of classes for no object.
        most_positive: as many at most are positive, and they come first.
    """

    def __init__(
        self,
        proposed: Kept,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        class_count: int,
        size: int,
        seed: tf.Tensor,
    ) -> None:
        # The boxes themselves are proposals too.
        candidates = tf.concat([proposed.boxes, boxes], 1)
        known = tf.concat([proposed.classes >= 0, classes >= 0], 1)
        matches = matched(boxes, classes >= 0, candidates, _OVERLAP, _OVERLAP)
        labels = tf.where(known, matches.labels, -1)
        sample: Sample = sampled(labels, size, _POSITIVE_SHARE, seed)
        chosen = tf.gather(labels, sample.indices, batch_dims=1)
        self.most_positive = max(1, int(size * _POSITIVE_SHARE))
        self.there = sample.there
        self.positive = sample.there & (chosen == POSITIVE)
        self.boxes = tf.gather(candidates, sample.indices, batch_dims=1)
        self.of_box = tf.gather(matches.boxes, sample.indices, batch_dims=1)
        of_class = tf.gather(classes, self.of_box, batch_dims=1)
        self.classes = tf.where(self.positive, of_class, class_count)


def box_losses(
    regions: Regions, outputs: tuple[tf.Tensor, tf.Tensor], boxes: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the losses of classes and boxes, each a mean over all regions.

    Args:
        regions: what is learned from.
        outputs: logits and changes of all regions, from the head.
        boxes: of each image, float [batch, most, 4].
    """
    logits, changes = outputs
    there = tf.cast(tf.reshape(regions.there, [-1]), tf.float32)
    labels = tf.reshape(regions.classes, [-1])
    count = tf.maximum(tf.reduce_sum(there), 1.0)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    positive = tf.reshape(regions.positive, [-1])
    wanted = encode(
        tf.reshape(tf.gather(boxes, regions.of_box, batch_dims=1), [-1, 4]),
        tf.reshape(regions.boxes, [-1, 4]),
        HEAD_WEIGHTS,
    )
    own = tf.reshape(changes, [tf.shape(changes)[0], -1, 4])
    made = tf.gather(own, tf.where(positive, labels, 0), batch_dims=1)
    wanted = tf.where(positive[:, tf.newaxis], wanted, tf.stop_gradient(made))
    return {
        "classes": tf.reduce_sum(there * entropy) / count,
        "boxes": tf.reduce_sum(tf.abs(made - wanted)) / count,
    }


def detections(proposed: Kept, outputs: tuple[tf.Tensor, tf.Tensor], sizes: tf.Tensor) -> Kept:
    """Returns the objects in each image, best first.

    Args:
        proposed: the regions.
        outputs: logits and changes of all regions, from the head.
        sizes: height and width of each image, int [batch, 2].
    """
    logits, changes = outputs
    batch, count = tf.unstack(tf.shape(proposed.boxes)[:2])
    scores = tf.reshape(tf.nn.softmax(logits)[:, :-1], [batch, count, -1])
    scores = tf.where(proposed.classes[..., tf.newaxis] >= 0, scores, 0.0)
    classes = tf.shape(scores)[-1]
    changes = tf.reshape(changes, [batch, count, classes, 4])
    found = decode(changes, proposed.boxes[:, :, tf.newaxis], HEAD_WEIGHTS)
    flat = clip(tf.reshape(found, [batch, -1, 4]), sizes)
    found = tf.reshape(flat, [batch, count, classes, 4])
    return suppressed(found, scores, _MOST, _IOU, _SCORE)
