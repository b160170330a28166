"""Two augmented views of a user's own images."""

from typing import Any

import tensorflow as tf

from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.data.forms import single_images
from tfcq.data.order import steps_per_epoch
from tfcq.data.split import Record, Split, view_size
from tfcq.data.views import view_batches

USUAL_BATCH = 256


def two_views(
    images: Any,
    batch_size: int = USUAL_BATCH,
    image_size: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    views: tuple[int, ...] = (1, 2),
) -> tf.data.Dataset:
    """Returns an endless data set of batches of two views, for `Pretrainer.fit`.

    `fit` needs `steps_per_epoch`, the number of images divided by the batch size.

    Args:
        images: images [height, width, 1 or 3], grey ones perhaps [height, width], one by one or
            in batches: an array, a `tf.data` set of known length, or what
            `keras.utils.image_dataset_from_directory` returns. Beside each may stand a label, and
            it may be in a dictionary. uint8 are pixels, floats lie in 0 to 1.
        batch_size: images per batch.
        image_size: height and width of a view in pixels; the images' own by default.
        augmentation: how views are made; the standard for size and channels by default.
        seed: decides order and views.
        first_epoch: epoch to start from; what follows equals an uninterrupted stream.
        views: numbers of the views, for a recipe that needs others: `pretrainer.recipe.views`; 0
            is the image without augmentation.

    Returns:
        Data set of (view 1, view 2), each float32 [batch_size, size, size, channels] in [0, 1].

    Raises:
        UserError: when the data set is infinite, of unknown length or smaller than a batch, holds
            no image or several, or values are neither pixels nor in 0 to 1.

    Example:

        >>> images = np.zeros((6, 8, 8, 1), np.uint8)
        >>> views = tfcq.two_views(images, batch_size=3)
        >>> [tuple(view.shape) for view in next(iter(views))]
        [(3, 8, 8, 1), (3, 8, 8, 1)]
    """
    return views_of_images(images, batch_size, image_size, augmentation, seed, first_epoch, views)[
        0
    ]


def views_of_images(
    images: Any,
    batch_size: int | None,
    image_size: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    views: tuple[int, ...] = (1, 2),
    receiver: str = "two_views()",
    epoch_steps: int | None = None,
) -> tuple[tf.data.Dataset, int]:
    """Returns what `two_views` returns, and the number of batches in an epoch.

    Args:
        images: as for `two_views`.
        batch_size: images per batch; None for that of the images or else 256, or all if fewer.
        image_size: as for `two_views`.
        augmentation: as for `two_views`.
        seed: as for `two_views`.
        first_epoch: as for `two_views`.
        views: as for `two_views`.
        receiver: who received the images, for messages.
        epoch_steps: batches of an epoch as `first_epoch` counts them; None for all of the images'.

    Raises:
        UserError: as for `two_views`.
    """
    single, size, in_batch = single_images(images, receiver)
    split = _as_split(single, size)
    batch_size = batch_size or min(in_batch or USUAL_BATCH, size)
    image_size = view_size(split, image_size)
    augmentation = augmentation or augmentation_for(image_size, split.image_shape[2])
    steps = steps_per_epoch(split, batch_size)
    epoch, step = divmod(first_epoch * (epoch_steps or steps), steps)
    batches = view_batches(
        split, augmentation, image_size, batch_size, seed, epoch, None, views, first_step=step
    )
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(endless), steps


def _as_split(single: tf.data.Dataset, size: int) -> Split:
    shape, dtype = tuple(single.element_spec.shape), single.element_spec.dtype
    varying = None in shape

    def record_of(index: tf.Tensor, image: tf.Tensor) -> Record:
        # Records are put together before they are decoded, which images of many sizes cannot be.
        held = tf.io.serialize_tensor(image) if varying else image
        return {"index": index, "image": held, "label": tf.constant(-1, tf.int64)}

    def decode(record: Record) -> Record:
        if not varying:
            return record
        image = tf.io.parse_tensor(record["image"], dtype)
        return {**record, "image": tf.ensure_shape(image, shape)}

    return Split(
        name="train",
        size=size,
        image_shape=shape,
        class_names=None,
        records=single.enumerate().map(record_of),
        decode=decode,
        record_bytes=(shape[0] or 512) * (shape[1] or 512) * shape[2] * dtype.size,
    )
