"""Mosaics: of four training images one, around a point that is drawn.

Bochkovskiy et al. (2020), Sec. 3.3; what the paper leaves open is as in the authors' code
(`src/data.c`): one image in two becomes a mosaic, and images are not made smaller for it, but each
has a corner at the point and is cut off at the edges of the mosaic. There a box is kept whatever
is left of it; here it needs half of its area.
"""

import tensorflow as tf

from tfcq.data.split import Record
from tfcq.settings.detection_groups import MOSAIC_IMAGES
from tfcq.settings.generator import GENERATOR

_SHARE = 0.5
# The point is no nearer to an edge than this share of the side.
_NEAREST = 0.2
_LEFT = 0.5


def with_mosaics(batch: Record) -> Record:
    """Returns a batch in which one image in two is the first of a mosaic.

    Args:
        batch: as `tfcq.data.boxed.box_batches.training_batches` yields it, without masks, of four
            images or more, and the seed of each, int64 [batch, 2], which decides whether it
            becomes a mosaic, with which others of the batch, and around which point.

    Returns:
        The batch without seeds and with four times as many places for boxes. The size of a mosaic
        is that of the batch; its scale and index are those of its first image.
    """
    size, most = batch["classes"].shape
    canvas = tf.shape(batch["images"])[1:3]

    def image(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draws = tf.random.stateless_uniform([3 + size - 1], batch["seed"][number], alg=GENERATOR)
        if draws[0] < _SHARE:
            shares = _NEAREST + (1 - 2 * _NEAREST) * draws[1:3]
            others = 1 + tf.math.top_k(draws[3:], MOSAIC_IMAGES - 1).indices
            of = (number + tf.concat([[0], others], axis=0)) % size
            return _mosaic(batch, of, tf.cast(shares * tf.cast(canvas, tf.float32), tf.int32))
        rest = (MOSAIC_IMAGES - 1) * most
        boxes = tf.pad(batch["boxes"][number], [[0, rest], [0, 0]])
        classes = tf.pad(batch["classes"][number], [[0, rest]], constant_values=-1)
        return batch["images"][number], batch["sizes"][number], boxes, classes

    names = ("images", "sizes", "boxes", "classes")
    shapes = (batch["images"].shape[1:], [2], [MOSAIC_IMAGES * most, 4], [MOSAIC_IMAGES * most])
    types = (tf.float32, tf.int32, tf.float32, tf.int32)
    signature = tuple(map(tf.TensorSpec, shapes, types))
    new = tf.map_fn(image, tf.range(size), fn_output_signature=signature)
    made = {**batch, **dict(zip(names, new, strict=True))}
    del made["seed"]
    return made


def _mosaic(batch: Record, of: tf.Tensor, point: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns image, size, boxes and classes of a mosaic of four images around a point."""
    canvas = tf.shape(batch["images"])[1:3]
    rows, boxes, classes = [], [], []
    for below in (False, True):
        parts = []
        for right in (False, True):
            number = of[2 * below + right]
            beyond, size = tf.constant([below, right]), batch["sizes"][number]
            room = tf.where(beyond, canvas - point, point)
            first = tf.where(beyond, 0, tf.maximum(size - room, 0))
            last = tf.where(beyond, room, size)
            part = batch["images"][number, first[0] : last[0], first[1] : last[1]]
            missing = room - tf.shape(part)[:2]
            parts.append(tf.pad(part, [[missing[0], 0], [missing[1], 0], [0, 0]]))
            corner = tf.where(beyond, point, point - size)
            found = batch["boxes"][number] + tf.cast(tf.tile(corner, [2]), tf.float32)
            inside = tf.clip_by_value(found, 0.0, tf.cast(tf.tile(canvas, [2]), tf.float32))
            kept = (batch["classes"][number] >= 0) & (_area(inside) >= _LEFT * _area(found))
            boxes.append(tf.where(kept[:, tf.newaxis], inside, 0.0))
            classes.append(tf.where(kept, batch["classes"][number], -1))
        rows.append(tf.concat(parts, axis=1))
    return tf.concat(rows, axis=0), canvas, tf.concat(boxes, axis=0), tf.concat(classes, axis=0)


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
