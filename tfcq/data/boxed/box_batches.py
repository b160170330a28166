"""Batches of images with boxes: resized by the shorter side, flipped, padded to one size.

As in `tfcq.data.views`, randomness is addressed: what is drawn of an image is a function of
(seed, epoch, index).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.boxed.mosaic import with_mosaics
from tfcq.data.order import shuffled_epochs, steps_per_epoch, without_done
from tfcq.data.split import Record
from tfcq.errors import UserError
from tfcq.settings.generator import GENERATOR

_MOSAIC = 1
# Sides of batches of several sizes are at least multiples of this, so that networks see a few dozen
# shapes: of COCO's in twos 105 instead of 239, for a fiftieth more to compute.
_COARSE = 64
# Of masks in batches, which are as large as their box: twice what Mask R-CNN predicts.
MASK_SIDE = 56


def training_batches(
    split: BoxedSplit,
    batch_size: int,
    shorter: Sequence[int],
    longest: int,
    seed: int,
    first_epoch: int = 0,
    flip: bool = True,
    stride: int = 32,
    mosaic: bool = False,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Yields batches to train a detector on, without end.

    Each epoch is a new order of all images; those left over after the last whole batch are not
    used in that epoch. Crowds are left out.

    Batches of images of one size have one shape too. Else a batch is as high as its highest and as
    wide as its widest image, rounded up to a multiple of the stride of 64 or more, and no larger
    than `canvas_size`.

    Args:
        split: the images.
        batch_size: images per batch.
        shorter: lengths of an image's shorter side, of which one is drawn.
        longest: greatest length of its longer side, for which the shorter one gives way.
        seed: any int64; decides order, lengths and flips.
        first_epoch: number of the first epoch, from 0.
        flip: whether one image in two is flipped left to right.
        stride: the height and width of a batch are multiples of this.
        mosaic: whether one image in two is a mosaic of four of its batch, which has to have as
            many; see `tfcq.data.boxed.mosaic`.
        first_step: number of the first epoch's first batch, from 0.

    Returns:
        Data set of dictionaries:

        images: float32 [batch, H, W, C] in [0, 1], padded with 0 below and to the right.
        sizes: height and width without padding, int32 [batch, 2].
        scales: how much larger than the file's they are, float32 [batch, 2].
        index: int64 [batch].
        boxes: float32 [batch, most, 4] in pixels of `images`, 0 where there is none; `most` is
            the split's `most_boxes`, with mosaics four times that.
        classes: int32 [batch, most], -1 where there is none.
        masks: of a split with masks, unless there are mosaics, float32 [batch, most, 56, 56], each
            as large as its box.

    Raises:
        UserError: a size that does not fit.
    """
    steps = steps_per_epoch(split, batch_size)
    canvas = canvas_size(split, shorter, longest, stride)
    lengths = tf.constant(list(shorter), tf.int32)

    def prepared(seed: tf.Tensor, record: Record) -> Record:
        record = split.decode(record)
        draws = tf.random.stateless_uniform([2], seed, alg=GENERATOR)
        length = lengths[tf.cast(draws[0] * len(shorter), tf.int32)]
        made, columns = _resized(record, length, longest), {}
        if mosaic:
            made["seed"] = tf.random.experimental.stateless_fold_in(seed, _MOSAIC, alg=GENERATOR)
        elif split.masks:
            columns["masks"] = _in_boxes(record["masks"], record["boxes"])
        boxes = record["boxes"] * tf.tile(made["scales"], [2])
        if flip and draws[1] < 0.5:
            made["images"] = made["images"][:, ::-1]
            width = tf.cast(made["sizes"][1], tf.float32)
            y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
            boxes = tf.stack([y1, width - x2, y2, width - x1], axis=1)
            columns = {name: masks[:, :, ::-1] for name, masks in columns.items()}
        learnt = ~record["crowd"]
        columns |= {"boxes": boxes, "classes": tf.cast(record["classes"], tf.int32)}
        for name, column in columns.items():
            made[name] = _filled(tf.boolean_mask(column, learnt), split.most_boxes, name)
        return made

    def epoch(number: tf.Tensor, records: tf.data.Dataset) -> tf.data.Dataset:
        used = records.take(steps * batch_size)
        left = without_done(used, number == 0, first_step * batch_size)
        made = left.map(prepared, tf.data.AUTOTUNE)
        made = _batched(made, batch_size, canvas, stride, _one_size(split), drop_remainder=True)
        return made.map(with_mosaics, tf.data.AUTOTUNE) if mosaic else made

    epochs = shuffled_epochs(split, seed, first_epoch)
    return epochs.enumerate().flat_map(epoch).prefetch(tf.data.AUTOTUNE)


def plain_batches(
    split: BoxedSplit,
    batch_size: int,
    shorter: int,
    longest: int,
    stride: int = 32,
) -> tf.data.Dataset:
    """Yields the images of a split in order, without their boxes; the last batch may be smaller.

    Args:
        split: the images.
        batch_size: images per batch.
        shorter: length of an image's shorter side.
        longest: as for `training_batches`.
        stride: as for `training_batches`.

    Returns:
        Data set of dictionaries as `training_batches` yields them, up to `index`. Boxes in
        `images` divided by `scales` are boxes in the file.
    """
    canvas = canvas_size(split, [shorter], longest, stride)

    def prepared(record: Record) -> Record:
        return _resized(split.decode(record), tf.constant(shorter), longest)

    made = split.records.map(prepared, tf.data.AUTOTUNE)
    return _batched(made, batch_size, canvas, stride, _one_size(split)).prefetch(1)


def padded_together(batches: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Returns batches of images padded to the largest height and width among them.

    Args:
        batches: from `plain_batches`.
    """
    shapes = [batch["images"].shape[1:3] for batch in batches]
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))

    def padded(images: tf.Tensor) -> tf.Tensor:
        return tf.image.pad_to_bounding_box(images, 0, 0, height, width)

    return [{**batch, "images": padded(batch["images"])} for batch in batches]


def canvas_size(
    split: BoxedSplit, shorter: Sequence[int], longest: int, stride: int
) -> tuple[int, int]:
    """Returns the height and width of batches that every image fits into.

    Args:
        split: the images.
        shorter: as for `training_batches`.
        longest: as for `training_batches`.
        stride: as for `training_batches`.

    Raises:
        UserError: a length that is not positive, or a shorter side above the longest.
    """
    if not shorter or min(shorter) < 1 or max(shorter) > longest:
        raise UserError(
            f"Images of {', '.join(map(str, shorter)) or 'no'} pixels at the shorter side, "
            f"{longest} at most; allowed: 1 to {longest}."
        )
    if stride < 1:
        raise UserError(f"Batches of a stride of {stride} pixels; allowed: 1 and above.")
    height, width, _ = split.image_shape
    tallest = widest = longest
    if height is not None and width is not None:
        made = [resized_shape(height, width, length, longest).numpy() for length in shorter]
        tallest, widest = (max(int(shape[axis]) for shape in made) for axis in (0, 1))
    return math.ceil(tallest / stride) * stride, math.ceil(widest / stride) * stride


def resized_shape(
    height: int | tf.Tensor, width: int | tf.Tensor, shorter: int | tf.Tensor, longest: int
) -> tf.Tensor:
    """Returns the height and width of an image that is resized by its shorter side.

    Args:
        height: of the image.
        width: of the image.
        shorter: length that its shorter side gets.
        longest: greatest length of its longer side, for which the shorter one gives way.

    Returns:
        int32 [2], rounded as detectron2 rounds.
    """
    sides = tf.cast(tf.stack([height, width]), tf.float64)
    scale = tf.cast(shorter, tf.float64) / tf.reduce_min(sides)
    scale = tf.minimum(scale, longest / tf.reduce_max(sides))
    return tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), 1)


def _resized(record: Record, shorter: tf.Tensor, longest: int) -> Record:
    shape = tf.shape(record["image"])[:2]
    sizes = resized_shape(shape[0], shape[1], shorter, longest)
    image = tf.cast(record["image"], tf.float32) / 255.0
    image = tf.clip_by_value(tf.image.resize(image, sizes, antialias=True), 0.0, 1.0)
    scales = tf.cast(sizes, tf.float32) / tf.cast(shape, tf.float32)
    return {"images": image, "sizes": sizes, "scales": scales, "index": record["index"]}


def _one_size(split: BoxedSplit) -> bool:
    return None not in split.image_shape


def _batched(
    images: tf.data.Dataset,
    batch_size: int,
    canvas: tuple[int, int],
    stride: int,
    fixed: bool,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Returns batches as large as the canvas, or as their own images need."""
    shapes = {name: spec.shape for name, spec in images.element_spec.items()}
    *_, channels = shapes["images"]
    shapes["images"] = tf.TensorShape([*(canvas if fixed else (None, None)), channels])
    multiple = math.ceil(_COARSE / stride) * stride

    def rounded(batch: Record) -> Record:
        size = tf.shape(batch["images"])[1:3]
        missing = tf.minimum(size + -size % multiple, canvas) - size
        room = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
        return {**batch, "images": tf.pad(batch["images"], room)}

    batches = images.padded_batch(batch_size, shapes, drop_remainder=drop_remainder)
    return batches if fixed else batches.map(rounded, tf.data.AUTOTUNE)


def _filled(column: tf.Tensor, most: int, name: str) -> tf.Tensor:
    """Returns a column filled up to a length."""
    room = [[0, most - tf.shape(column)[0]], *[[0, 0]] * (len(column.shape) - 1)]
    filled = tf.pad(column, room, constant_values=-1 if name == "classes" else 0)
    return tf.ensure_shape(filled, [most, *column.shape[1:]])


def _in_boxes(masks: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Returns the part of each mask in its box, float32 [N, MASK_SIDE, MASK_SIDE].

    So that masks of large images take little memory, and stay as they are when images are resized.
    """
    last = tf.cast(tf.tile(tf.shape(masks)[1:], [2]) - 1, tf.float32)
    half = (boxes[:, 2:] - boxes[:, :2]) / (2 * MASK_SIDE)
    # From the middle of the first point's part of the box to that of the last one's.
    points = tf.concat([boxes[:, :2] + half, boxes[:, 2:] - half], axis=1) - 0.5
    points = tf.clip_by_value(points, 0.0, last) / tf.maximum(last, 1.0)
    images = tf.cast(masks, tf.float32)[..., tf.newaxis]
    side = [MASK_SIDE, MASK_SIDE]
    return tf.image.crop_and_resize(images, points, tf.range(tf.shape(boxes)[0]), side)[..., 0]
