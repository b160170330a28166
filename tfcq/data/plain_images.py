"""A split's images as evaluation sees them: in their order, whole or their centre."""

import math

import numpy as np
import tensorflow as tf

from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.split import Record, Split
from tfcq.errors import check_at_least

# What evaluation sees of larger images: 224 of 256 pixels, as in SimCLR's and SimSiam's code.
CENTRAL_CROP = 0.875


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
    check_at_least("image_size", image_size, 1)
    check_at_least("batch_size", batch_size, 1)
    crop = central_crop(split, image_size, test_crop)

    def prepare(record: Record) -> tuple[tf.Tensor, tf.Tensor]:
        record = split.decode(record)
        image = tf.ensure_shape(record["image"], split.image_shape)
        return centre_of(as_float(image), image_size, crop), record["label"]

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


def as_float(images: tf.Tensor) -> tf.Tensor:
    """Returns images in [0, 1].

    Args:
        images: uint8 in [0, 255], or float32 in [0, 1] already.
    """
    if images.dtype.is_floating:
        return images
    return tf.cast(images, tf.float32) / 255.0


def centre_of(image: tf.Tensor, size: int, crop: float) -> tf.Tensor:
    """Resizes an image, or a batch of one shape, and cuts out its centre.

    Args:
        image: float32 [..., H, W, C] in [0, 1].
        size: height and width of the result, in pixels.
        crop: share of the shorter side that is kept.
    """
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
