"""Region proposals (Ren et al., 2015): which anchors hold an object, and where its box lies."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers

from tfcq.detection.anchors import anchors
from tfcq.detection.boxes import clip, decode, encode
from tfcq.detection.matching import POSITIVE, matched, sampled
from tfcq.detection.suppression import Kept, suppressed

# detectron2's, by which an anchor is positive or negative.
_LOW, _HIGH = 0.3, 0.7
_POSITIVE_SHARE = 0.5
_IOU = 0.7


@dataclasses.dataclass(frozen=True)
class ProposalSettings:
    """How regions are proposed.

    Args:
        sizes: square roots of the anchors' areas on each level, in pixels.
        ratios: their heights over their widths.
        strides: pixels of the image to a cell of each level.
        before: proposals of each level that go into non-maximum suppression, in training and else.
        kept: proposals of an image that are kept, in training and else.
        sampled: anchors of an image that a step learns from.
    """

    sizes: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    before: tuple[int, int] = (12000, 6000)
    kept: tuple[int, int] = (2000, 1000)
    sampled: int = 256


def proposal_head(channels: int, anchors_a_cell: int, joins_levels: bool = False) -> keras.Model:
    """Returns the network from features to objectness and changes of the anchors of each cell.

    Args:
        channels: of the features.
        anchors_a_cell: number of anchors.
        joins_levels: whether it reads several levels, which are then quantized alike before.

    Returns:
        A functional model from features [batch, H, W, channels] to [batch, H, W, anchors] and
        [batch, H, W, anchors * 4].
    """
    inputs = keras.Input((None, None, channels), name="features")
    x = layers.Activation("linear", name="levels")(inputs) if joins_levels else inputs
    x = layers.Conv2D(channels, 3, padding="same", kernel_initializer=_normal(), name="proposals")(
        x
    )
    x = layers.ReLU(name="proposals_relu")(x)
    objectness = layers.Conv2D(
        anchors_a_cell, 1, kernel_initializer=_normal(), name="proposals_objectness"
    )(x)
    changes = layers.Conv2D(
        4 * anchors_a_cell, 1, kernel_initializer=_normal(), name="proposals_changes"
    )(x)
    return keras.Model(inputs, [objectness, changes], name="proposals")


def _normal() -> keras.initializers.Initializer:
    """Returns one for each layer: it takes its seed when it is made."""
    return keras.initializers.RandomNormal(stddev=0.01)


@dataclasses.dataclass(frozen=True, eq=False)
class Proposed:
    """What the head makes of a batch.

    Args:
        anchors: of each level, float [anchors, 4].
        objectness: of each level, float [batch, anchors].
        changes: of each level, float [batch, anchors, 4].
    """

    anchors: list[tf.Tensor]
    objectness: list[tf.Tensor]
    changes: list[tf.Tensor]


def proposed(
    outputs: Sequence[tuple[tf.Tensor, tf.Tensor]], settings: ProposalSettings
) -> Proposed:
    """Returns what the head made of each level, anchor by anchor.

    Args:
        outputs: objectness and changes of each level, from `proposal_head`.
        settings: the settings.
    """
    found = Proposed([], [], [])
    for (objectness, changes), sizes, stride in zip(
        outputs, settings.sizes, settings.strides, strict=True
    ):
        batch, height, width = tf.unstack(tf.shape(objectness)[:3])
        found.anchors.append(anchors(height, width, stride, sizes, settings.ratios))
        found.objectness.append(tf.reshape(objectness, [batch, -1]))
        found.changes.append(tf.reshape(changes, [batch, -1, 4]))
    return found


def proposals(
    found: Proposed, sizes: tf.Tensor, settings: ProposalSettings, training: bool
) -> Kept:
    """Returns the best proposals of each image, of all levels together.

    Args:
        found: what the head made.
        sizes: height and width of each image, int [batch, 2].
        settings: the settings.
        training: whether they are proposals to learn from, of which there are more.
    """
    before, kept = (pair[0 if training else 1] for pair in (settings.before, settings.kept))
    boxes, scores = [], []
    for grid, objectness, changes in zip(
        found.anchors, found.objectness, found.changes, strict=True
    ):
        count = tf.minimum(before, tf.shape(grid)[0])
        best, order = tf.math.top_k(tf.stop_gradient(objectness), count)
        changes = tf.gather(tf.stop_gradient(changes), order, batch_dims=1)
        decoded = clip(decode(changes, tf.gather(grid, order)), sizes)
        sides = tf.reduce_min(decoded[..., 2:] - decoded[..., :2], axis=-1)
        boxes.append(decoded)
        scores.append(tf.where(sides > 0, best, float("-inf")))
    # Levels are classes here: a proposal suppresses those of its own level alone.
    levels = len(boxes)
    columns = [
        tf.stack(
            [s if n == level else tf.fill(tf.shape(s), float("-inf")) for n in range(levels)], -1
        )
        for level, s in enumerate(scores)
    ]
    lowest = tf.float32.min
    return suppressed(
        tf.concat(boxes, 1), tf.maximum(tf.concat(columns, 1), lowest), kept, _IOU, lowest
    )


def proposal_losses(
    found: Proposed,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    settings: ProposalSettings,
    seed: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Returns the losses of objectness and of boxes, as detectron2 weighs them.

    Args:
        found: what the head made.
        boxes: of each image, float [batch, most, 4].
        classes: int [batch, most], -1 where there is no box.
        settings: the settings.
        seed: int [2], draws the anchors that are learned from.
    """
    grid = tf.concat(found.anchors, 0)
    objectness, changes = tf.concat(found.objectness, 1), tf.concat(found.changes, 1)
    matches = matched(boxes, classes >= 0, grid, _LOW, _HIGH, low_quality=True)
    sample = sampled(matches.labels, settings.sampled, _POSITIVE_SHARE, seed)
    labels = tf.gather(matches.labels, sample.indices, batch_dims=1)
    logits = tf.gather(objectness, sample.indices, batch_dims=1)
    there = tf.cast(sample.there, tf.float32)
    positive = there * tf.cast(labels == POSITIVE, tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=positive, logits=logits)
    of_box = tf.gather(matches.boxes, sample.indices, batch_dims=1)
    wanted = encode(tf.gather(boxes, of_box, batch_dims=1), tf.gather(grid, sample.indices))
    made = tf.gather(changes, sample.indices, batch_dims=1)
    # What is filled up has no box, whose changes are infinite.
    wanted = tf.where(positive[..., tf.newaxis] > 0, wanted, tf.stop_gradient(made))
    count = settings.sampled * tf.cast(tf.shape(boxes)[0], tf.float32)
    return {
        "objectness": tf.reduce_sum(there * entropy) / count,
        "proposal_boxes": tf.reduce_sum(tf.abs(made - wanted)) / count,
    }
