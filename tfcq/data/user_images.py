"""Two augmented views of a user's own `tf.data` set."""

import tensorflow as tf

from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.data.pipeline import view_batches
from tfcq.data.split import Split, view_size
from tfcq.errors import UserError


def two_views(
    images: tf.data.Dataset,
    batch_size: int = 256,
    image_size: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    views: tuple[int, ...] = (1, 2),
) -> tf.data.Dataset:
    """Returns an endless data set of batches of two views, for `Pretrainer.fit`.

    `fit` needs `steps_per_epoch`, the number of images divided by the batch size.

    Args:
        images: data set of single images, uint8 [height, width, channels] with 1 or 3 channels,
            or of tuples and dictionaries whose image is first or named `"image"`; it must know
            its length.
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
        UserError: when the data set is batched, infinite, of unknown length or not of uint8
            images, or smaller than a batch.

    Example:

        >>> images = np.zeros((6, 8, 8, 1), np.uint8)
        >>> views = tfcq.two_views(tf.data.Dataset.from_tensor_slices(images), batch_size=3)
        >>> [tuple(view.shape) for view in next(iter(views))]
        [(3, 8, 8, 1), (3, 8, 8, 1)]
    """
    split = _as_split(images)
    image_size = view_size(split, image_size)
    augmentation = augmentation or augmentation_for(image_size, split.image_shape[2])
    batches = view_batches(
        split, augmentation, image_size, batch_size, seed, first_epoch, None, views
    )
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _image_of(*element):
    first = element[0]
    return first["image"] if isinstance(first, dict) else first


def _as_split(images: tf.data.Dataset) -> Split:
    if not isinstance(images, tf.data.Dataset):
        raise UserError(
            f"A {type(images).__name__} was received; allowed: a tf.data.Dataset, such as "
            "tf.data.Dataset.from_tensor_slices(images)."
        )
    images = images.map(_image_of)
    spec, size = images.element_spec, int(images.cardinality())
    if spec.dtype != tf.uint8 or spec.shape.rank != 3 or spec.shape[-1] not in (1, 3):
        raise UserError(
            f"The data set yields {spec.dtype.name} of shape {spec.shape}; allowed: single uint8 "
            "images [height, width, 1 or 3]. Use unbatch() on a batched one."
        )
    if size < 1:
        raise UserError(
            "The data set has no known, finite length; allowed: one to which "
            "tf.data.experimental.assert_cardinality(count) was applied."
        )
    shape = tuple(spec.shape.as_list())
    return Split(
        name="train",
        size=size,
        image_shape=shape,
        class_names=None,
        records=images.enumerate().map(
            lambda index, image: {
                "index": index,
                "image": image,
                "label": tf.constant(-1, tf.int64),
            }
        ),
        decode=lambda record: record,
        record_bytes=(shape[0] or 512) * (shape[1] or 512) * shape[2],
    )
