"""Batches of random views of a split's images.

Randomness is addressed, not drawn: a view is a function of (seed, epoch, index of the image, number
of the view).
"""

import tensorflow as tf

from tfcq.data.augmentation import Augmentation
from tfcq.data.draws import uniform_draws
from tfcq.data.order import (
    ORDER,
    VIEWS,
    blocks_of,
    epoch_numbers,
    fold,
    rows_of_batches,
    rows_of_part,
    shuffled,
    steps_per_epoch,
    without_done,
)
from tfcq.data.plain_images import as_float, central_crop, centre_of
from tfcq.data.split import Record, Split
from tfcq.errors import check_at_least
from tfcq.settings.generator import GENERATOR

# Splits whose decoded images fit are decoded once and kept.
CACHE_BYTES = 10**9
# Up to this size images are drawn and augmented a batch at a time.
TOGETHER_PIXELS = 64 * 64
# Memory that tf.data's autotuning may fill with what is made in parallel and ahead of its use.
READ_AHEAD_BYTES = 10**9
# AutoGraph takes a second and a half to find that they neither branch nor loop on a tensor.
_unconverted = tf.autograph.experimental.do_not_convert


def view_batches(
    split: Split,
    augmentation: Augmentation,
    image_size: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    epochs: int | None = None,
    views: tuple[int, ...] = (1, 2),
    labels: bool = False,
    first_step: int = 0,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Yields batches of views of the same images, two augmented ones unless told otherwise.

    Each epoch is a new order of all images; the images left over after the last whole batch are
    not used in that epoch. A split too large to be shuffled in memory is shuffled block by block,
    which is logged.

    Args:
        split: the images.
        augmentation: how views are made.
        image_size: height and width of the views, in pixels.
        batch_size: images per batch.
        seed: any int64; decides the order and the views.
        first_epoch: number of the first epoch, from 0.
        epochs: number of epochs, None for no end.
        views: numbers of the views; 1 and 2 are augmented, 0 is the image as evaluation sees it.
        labels: whether the images' labels stand behind their views.
        first_step: number of the first epoch's first batch, from 0.
        part: which rows of each batch are made, and of how many equal parts: `(1, 4)` for the
            second quarter; others are read where a split is not held in memory, but not decoded.

    Returns:
        Data set of a tuple with each view, float32 [rows, image_size, image_size, C], values in
        [0, 1], and perhaps the labels, int64 [rows]; batch_size rows, or those of the part.

    Raises:
        UserError: a batch size that does not fit, a size, epoch or count that is negative, or an
            augmentation that the images' channels cannot have.
    """
    steps = steps_per_epoch(split, batch_size)
    check_at_least("image_size", image_size, 1)
    check_at_least("first_epoch", first_epoch, 0)
    height, width, channels = split.image_shape
    augmentation.check_channels(channels)
    pixels = None if height is None or width is None else height * width
    held = split.size * max((pixels or 0) * channels, split.record_bytes)
    cached = pixels is not None and held <= CACHE_BYTES
    central = central_crop(split, image_size)
    blocks, decode = blocks_of(split, cached)
    rows = rows_of_part(batch_size, *part)
    # Large images, and those of many sizes, are each a piece of work of its own.
    together = pixels is not None and max(pixels, image_size**2) <= TOGETHER_PIXELS
    augment = augmentation.augment if together else augmentation.augment_one

    def view_of(number: int, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if number == 0:
            return centre_of(as_float(images), image_size, central)
        return augment(as_float(images) if together else images, draws, image_size)

    def views_of(seeds: tf.Tensor, records: Record) -> tuple[tf.Tensor, ...]:
        images = tf.ensure_shape(records["image"], [*[None] * together, *split.image_shape])
        draws = _draws(seeds, records["index"], (2, augmentation.draws_per_view))
        made = tuple(view_of(number, images, draws[..., number - 1, :]) for number in views)
        return (*made, records["label"]) if labels else made

    def seeds_and_records(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        view_seed, order = fold(epoch_seed, VIEWS), fold(epoch_seed, ORDER)
        begun = epoch == first_epoch
        if cached and together:
            records = without_done(shuffled(blocks, order, batch_size, rows), begun, first_step)
        else:
            used = shuffled(blocks, order).take(steps * batch_size)
            left = without_done(used, begun, first_step * batch_size)
            records = rows_of_batches(left, batch_size, rows)
        return records.map(lambda record: (view_seed, record))

    records = epoch_numbers(first_epoch, epochs).flat_map(_unconverted(seeds_and_records))
    if decode is not None:
        records = records.map(lambda seeds, record: (seeds, decode(record)), tf.data.AUTOTUNE)
    if together and not cached:
        records = records.batch(len(rows), drop_remainder=True)
    batches = records.map(_unconverted(views_of), tf.data.AUTOTUNE)
    if not together:
        batches = batches.batch(len(rows), drop_remainder=True)
    return _ahead(batches)


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Yields batches that are made ahead of their use, within bounds of memory."""
    options = tf.data.Options()
    options.autotune.ram_budget = READ_AHEAD_BYTES
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _draws(seeds: tf.Tensor, indices: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the draws of images, or of one, from the seed of their epoch."""
    if indices.shape.rank == 0:
        return tf.random.stateless_uniform(shape, fold(seeds, indices), alg=GENERATOR)
    return uniform_draws(tf.reshape(seeds, [-1, 2])[0], indices, shape)
