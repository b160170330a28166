"""From a split to batches: random views for pre-training, plain images for evaluation.

Randomness is addressed, not drawn: the order of an epoch is a function of (seed, epoch), a view of
(seed, epoch, index of the image, number of the view). A pipeline that starts at epoch k therefore
yields exactly what one that started at epoch 0 yields from epoch k on.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from tfcq.data.augmentation import Augmentation
from tfcq.data.draws import uniform_draws
from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.split import Record, Split
from tfcq.errors import UserError

# Splits whose decoded images fit are decoded once and kept.
CACHE_BYTES = 10**9
# What evaluation sees of larger images: 224 of 256 pixels, as in SimCLR's and SimSiam's code.
CENTRAL_CROP = 0.875
# Memory for the undecoded records that are shuffled together.
SHUFFLE_BYTES = 5 * 10**8
# Up to this size images are drawn and augmented a batch at a time.
TOGETHER_PIXELS = 64 * 64
# Memory that tf.data's autotuning may fill with what is made in parallel and ahead of its use.
READ_AHEAD_BYTES = 10**9
# The same generator on every device, so that a run can be repeated on another one.
_GENERATOR = "philox"
_ORDER, _VIEWS = 0, 1


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Returns the number of whole batches in one epoch.

    Raises:
        UserError: `batch_size` is not positive, or exceeds the number of images.
    """
    if not 1 <= batch_size <= split.size:
        raise UserError(
            f"batch_size={batch_size} with {split.size} images in the {split.name} split;"
            f" allowed: 1 to {split.size}."
        )
    return split.size // batch_size


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
    _check_at_least("image_size", image_size, 1)
    _check_at_least("first_epoch", first_epoch, 0)
    height, width, channels = split.image_shape
    augmentation.check_channels(channels)
    pixels = None if height is None or width is None else height * width
    held = split.size * max((pixels or 0) * channels, split.record_bytes)
    cached = pixels is not None and held <= CACHE_BYTES
    central = central_crop(split, image_size)
    blocks, decode = _blocks(split, cached)
    rows = _rows(batch_size, *part)
    # Large images, and those of many sizes, are each a piece of work of its own.
    together = pixels is not None and max(pixels, image_size**2) <= TOGETHER_PIXELS
    augment = augmentation.augment if together else augmentation.augment_one

    def view_of(number: int, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if number == 0:
            return _fit(_as_float(images), image_size, central)
        return augment(_as_float(images) if together else images, draws, image_size)

    def views_of(seeds: tf.Tensor, records: Record) -> tuple[tf.Tensor, ...]:
        images = tf.ensure_shape(records["image"], [*[None] * together, *split.image_shape])
        draws = _draws(seeds, records["index"], (2, augmentation.draws_per_view))
        made = tuple(view_of(number, images, draws[..., number - 1, :]) for number in views)
        return (*made, records["label"]) if labels else made

    def seeds_and_records(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        view_seed, order = _fold(epoch_seed, _VIEWS), _fold(epoch_seed, _ORDER)
        begun = epoch == first_epoch
        if cached and together:
            records = without_done(_shuffled(blocks, order, batch_size, rows), begun, first_step)
        else:
            used = _shuffled(blocks, order).take(steps * batch_size)
            left = without_done(used, begun, first_step * batch_size)
            records = _rows_of_batches(left, batch_size, rows)
        return records.map(lambda record: (view_seed, record))

    records = _epoch_numbers(first_epoch, epochs).flat_map(seeds_and_records)
    if decode is not None:
        records = records.map(lambda seeds, record: (seeds, decode(record)), tf.data.AUTOTUNE)
    if together and not cached:
        records = records.batch(len(rows), drop_remainder=True)
    batches = records.map(views_of, tf.data.AUTOTUNE)
    if not together:
        batches = batches.batch(len(rows), drop_remainder=True)
    return _ahead(batches)


def shuffled_epochs(split: Split, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """Yields each epoch's records as a data set of its own, in the order of `view_batches`.

    Args:
        split: the images.
        seed: any int64; decides the order.
        first_epoch: number of the first epoch, from 0.

    Returns:
        Endless data set of data sets of (seed of the image in this epoch, undecoded record).
    """
    _check_at_least("first_epoch", first_epoch, 0)
    blocks, _ = _blocks(split, cached=False)

    def records_of(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order, drawn = (_fold(epoch_seed, use) for use in (_ORDER, _VIEWS))
        return _shuffled(blocks, order).map(lambda one: (_fold(drawn, one["index"]), one))

    return _epoch_numbers(first_epoch, None).map(records_of)


def without_done(records: tf.data.Dataset, begun: tf.Tensor, done: int) -> tf.data.Dataset:
    """Returns what is left of an epoch's records.

    Args:
        records: all of them.
        begun: whether the epoch had begun, a boolean of shape ().
        done: how many were used then.
    """
    return records.skip(tf.cast(tf.where(begun, done, 0), tf.int64))


def central_crop(split: Split, image_size: int, asked: float | None = None) -> float:
    """Returns the share of the shorter side that evaluation sees of images.

    Without a wish: all of images that are no larger than the network's, 0.875 of larger ones and
    where sizes vary.

    Args:
        split: the images.
        image_size: height and width that the network takes, in pixels.
        asked: the share asked for, above 0 to 1; None for the usual one.
    """
    if asked is not None:
        return asked
    height, width, _ = split.image_shape
    if height is None or width is None or min(height, width) > image_size:
        return CENTRAL_CROP
    return 1.0


def labelled_batches(
    split: Split, image_size: int, batch_size: int, test_crop: float | None = None
) -> tf.data.Dataset:
    """Yields plain images and labels in index order; the last batch may be smaller.

    As with torchvision's `Resize` and `CenterCrop`, the shorter side is resized (bilinear,
    antialiased) to `image_size / test_crop` pixels, such as 256, and the central square of
    `image_size` pixels, such as 224, is cut out. Images of that size already stay as they are.

    Args:
        split: the images.
        image_size: height and width of the result, in pixels.
        batch_size: images per batch; may exceed the number of images.
        test_crop: share of the shorter side that is kept; None as for `central_crop`.

    Returns:
        Data set of (images float32 [B, image_size, image_size, C] in [0, 1], labels int64 [B]);
        labels are -1 where the split has none.

    Raises:
        UserError: a size that is not positive.
    """
    _check_at_least("image_size", image_size, 1)
    _check_at_least("batch_size", batch_size, 1)
    crop = central_crop(split, image_size, test_crop)

    def prepare(record: Record) -> tuple[tf.Tensor, tf.Tensor]:
        record = split.decode(record)
        image = tf.ensure_shape(record["image"], split.image_shape)
        return _fit(_as_float(image), image_size, crop), record["label"]

    batches = split.records.map(prepare, tf.data.AUTOTUNE).batch(batch_size)
    return batches.prefetch(tf.data.AUTOTUNE)


def labelled_arrays(
    split: Split, image_size: int, limit: int | None = None, test_crop: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `labelled_batches` yields as two arrays.

    Args:
        split: the images.
        image_size: height and width of the result, in pixels.
        limit: use the first `limit` images only; None for all.
        test_crop: as for `labelled_batches`.

    Returns:
        images float32 [N, image_size, image_size, C] in [0, 1]; labels int64 [N].

    Raises:
        UserError: a size or limit that is not positive, or a limit above the number of images.
    """
    if limit is not None:
        split = split.first(limit)
    batches = labelled_batches(split, image_size, 256, test_crop).as_numpy_iterator()
    with user_errors_of_pipelines():
        images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _blocks(
    split: Split, cached: bool
) -> tuple[tf.data.Dataset, Callable[[Record], Record] | None]:
    """Returns records in blocks that are each shuffled as a whole, and what decodes them later."""
    if cached and split.keeping is not None:
        # Each when it is first used: the first batch need not wait for all.
        return split.records.batch(split.size).cache(), split.keeping()
    if cached:
        decoded = split.records.map(split.decode, tf.data.AUTOTUNE)
        return decoded.batch(split.size).cache(), None
    length = min(split.size, max(1, SHUFFLE_BYTES // split.record_bytes))
    if length < split.size:
        logging.warning("Shuffling %d images in blocks of %d.", split.size, length)
    return split.records.batch(length).prefetch(1), split.decode


def _shuffled(
    blocks: tf.data.Dataset,
    seed: tf.Tensor,
    batch_size: int | None = None,
    rows: range = range(0),
) -> tf.data.Dataset:
    """Yields the records of each block in random order, perhaps rows of a block's whole batches.

    `Dataset.shuffle` would not do: its order also depends on TensorFlow's global seed.
    """

    def records_of(number: tf.Tensor, block: Record) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(block["index"])[0]), _fold(seed, number), alg=_GENERATOR
        )
        picked = tf.data.Dataset.from_tensor_slices(order)
        if batch_size is not None:
            picked = picked.batch(batch_size, drop_remainder=True)
            picked = picked.map(lambda i: i[rows.start : rows.stop])
        return picked.map(lambda i: {key: tf.gather(value, i) for key, value in block.items()})

    return blocks.enumerate().flat_map(records_of)


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Yields batches that are made ahead of their use, within bounds of memory."""
    options = tf.data.Options()
    options.autotune.ram_budget = READ_AHEAD_BYTES
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _rows(batch_size: int, number: int, parts: int) -> range:
    """Returns which rows of a batch are those of one of equal parts."""
    count = batch_size // parts
    return range(number * count, (number + 1) * count)


def _rows_of_batches(records: tf.data.Dataset, batch_size: int, rows: range) -> tf.data.Dataset:
    """Yields the records of some rows of each batch."""
    if len(rows) == batch_size:
        return records

    def is_row(number: tf.Tensor, record: Record) -> tf.Tensor:
        row = number % batch_size
        return (rows.start <= row) & (row < rows.stop)

    return records.enumerate().filter(is_row).map(lambda number, record: record)


def _epoch_numbers(first_epoch: int, epochs: int | None) -> tf.data.Dataset:
    if epochs is None:
        return tf.data.Dataset.counter(first_epoch)
    _check_at_least("epochs", epochs, 0)
    return tf.data.Dataset.range(first_epoch, first_epoch + epochs)


def _draws(seeds: tf.Tensor, indices: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the draws of images, or of one, from the seed of their epoch."""
    if indices.shape.rank == 0:
        return tf.random.stateless_uniform(shape, _fold(seeds, indices), alg=_GENERATOR)
    return uniform_draws(tf.reshape(seeds, [-1, 2])[0], indices, shape)


def _fold(seed: tf.Tensor, data: tf.Tensor | int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, data, alg=_GENERATOR)


def _as_float(images: tf.Tensor) -> tf.Tensor:
    if images.dtype.is_floating:
        return images
    return tf.cast(images, tf.float32) / 255.0


def _fit(image: tf.Tensor, size: int, crop: float) -> tf.Tensor:
    """Resizes an image, or a batch of one shape, and cuts out its centre."""
    height, width, channels = image.shape[-3:]
    if (height, width) == (size, size) and crop == 1:
        return image
    # Whole pixels, and half ones to the even neighbour, as torchvision rounds them.
    shorter = math.floor(size / crop + 1e-6)
    sides = tf.shape(image)[-3:-1]
    sides = shorter * sides // tf.reduce_min(sides)
    resized = tf.image.resize(image, sides, antialias=True)
    top, left = tf.unstack(tf.cast(tf.round((sides - size) / 2), tf.int32))
    centre = tf.image.crop_to_bounding_box(resized, top, left, size, size)
    # Weights of a pixel add up to 1 only to within rounding.
    centre = tf.clip_by_value(centre, 0.0, 1.0)
    return tf.ensure_shape(centre, [*image.shape[:-3], size, size, channels])


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name}={value}; allowed: {least} or more.")
