"""The order of images: each epoch's own, a function of (seed, epoch).

What starts at epoch k therefore yields exactly what started at epoch 0 yields from epoch k on.
"""

from collections.abc import Callable

import tensorflow as tf
from absl import logging

from tfcq.data.split import Record, Split
from tfcq.errors import UserError, check_at_least
from tfcq.settings.generator import GENERATOR

# Memory for the undecoded records that are shuffled together.
SHUFFLE_BYTES = 5 * 10**8
# What an epoch's seed is folded with.
ORDER, VIEWS = 0, 1


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


def shuffled_epochs(split: Split, seed: int, first_epoch: int = 0) -> tf.data.Dataset:
    """Yields each epoch's records as a data set of its own, in the order of `view_batches`.

    Args:
        split: the images.
        seed: any int64; decides the order.
        first_epoch: number of the first epoch, from 0.

    Returns:
        Endless data set of data sets of (seed of the image in this epoch, undecoded record).
    """
    check_at_least("first_epoch", first_epoch, 0)
    blocks, _ = blocks_of(split, cached=False)

    def records_of(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order, drawn = (fold(epoch_seed, use) for use in (ORDER, VIEWS))
        return shuffled(blocks, order).map(lambda one: (fold(drawn, one["index"]), one))

    return epoch_numbers(first_epoch, None).map(records_of)


def without_done(records: tf.data.Dataset, begun: tf.Tensor, done: int) -> tf.data.Dataset:
    """Returns what is left of an epoch's records.

    Args:
        records: all of them.
        begun: whether the epoch had begun, a boolean of shape ().
        done: how many were used then.
    """
    return records.skip(tf.cast(tf.where(begun, done, 0), tf.int64))


def blocks_of(
    split: Split, cached: bool
) -> tuple[tf.data.Dataset, Callable[[Record], Record] | None]:
    """Returns records in blocks that are each shuffled as a whole, and what decodes them later.

    More blocks than one are logged.

    Args:
        split: the images.
        cached: whether all are one block, decoded once and kept.
    """
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


def shuffled(
    blocks: tf.data.Dataset,
    seed: tf.Tensor,
    batch_size: int | None = None,
    rows: range = range(0),
) -> tf.data.Dataset:
    """Yields the records of each block in random order, perhaps rows of a block's whole batches.

    `Dataset.shuffle` would not do: its order also depends on TensorFlow's global seed.

    Args:
        blocks: records, a block at a time.
        seed: decides the order, int64 [2].
        batch_size: yield batches of so many records; None for records one by one.
        rows: which of each batch.
    """

    def records_of(number: tf.Tensor, block: Record) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(block["index"])[0]), fold(seed, number), alg=GENERATOR
        )
        picked = tf.data.Dataset.from_tensor_slices(order)
        if batch_size is not None:
            picked = picked.batch(batch_size, drop_remainder=True)
            picked = picked.map(lambda i: i[rows.start : rows.stop])
        return picked.map(lambda i: {key: tf.gather(value, i) for key, value in block.items()})

    return blocks.enumerate().flat_map(records_of)


def rows_of_part(batch_size: int, number: int, parts: int) -> range:
    """Returns which rows of a batch are those of one of equal parts.

    Args:
        batch_size: rows of a batch.
        number: of the part, from 0.
        parts: how many there are.
    """
    count = batch_size // parts
    return range(number * count, (number + 1) * count)


def rows_of_batches(records: tf.data.Dataset, batch_size: int, rows: range) -> tf.data.Dataset:
    """Yields the records of some rows of each batch.

    Args:
        records: one by one, from the beginning of a batch.
        batch_size: rows of a batch.
        rows: which.
    """
    if len(rows) == batch_size:
        return records

    def is_row(number: tf.Tensor, record: Record) -> tf.Tensor:
        row = number % batch_size
        return (rows.start <= row) & (row < rows.stop)

    return records.enumerate().filter(is_row).map(lambda number, record: record)


def epoch_numbers(first_epoch: int, epochs: int | None) -> tf.data.Dataset:
    """Yields the numbers of epochs, int64.

    Args:
        first_epoch: number of the first.
        epochs: how many; None for no end.

    Raises:
        UserError: when `epochs` is negative.
    """
    if epochs is None:
        return tf.data.Dataset.counter(first_epoch)
    check_at_least("epochs", epochs, 0)
    return tf.data.Dataset.range(first_epoch, first_epoch + epochs)


def fold(seed: tf.Tensor, data: tf.Tensor | int) -> tf.Tensor:
    """Returns a seed of its own for a number, the same on every device.

    Args:
        seed: int64 [2].
        data: the number.
    """
    return tf.random.experimental.stateless_fold_in(seed, data, alg=GENERATOR)
