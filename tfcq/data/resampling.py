"""Crops, resizing and blur with different parameters for every image of a batch."""

import tensorflow as tf


def crop_resize(
    images: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    output_size: int,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Returns one crop of each image, resized (bilinear, antialiased) and perhaps flipped.

    Equals `tf.image.resize(crop, size, antialias=True)` of each crop on its own, which
    `tf.image.crop_and_resize` does not: that one neither filters when it shrinks nor places pixel
    centres as torchvision and Pillow do. Resizing is linear and separable, so a batch is two
    matrix products.

    Args:
        images: float32 [B, H, W, C].
        top: float32 [B], first row of the crop, whole pixels.
        left: float32 [B], first column, whole pixels.
        height: float32 [B], rows of the crop, whole pixels, 1 or more.
        width: float32 [B], columns of the crop.
        output_size: height and width of the result, in pixels.
        flip: bool [B], whether the result is mirrored left to right.

    Returns:
        float32 [B, output_size, output_size, C].
    """
    shape = tf.shape(images)
    channels = images.shape[-1]
    rows = _weights(top, height, shape[1], output_size)
    columns = _weights(left, width, shape[2], output_size)
    columns = tf.where(flip[:, tf.newaxis, tf.newaxis], columns[:, ::-1], columns)
    size = output_size
    crop = rows @ tf.reshape(images, [shape[0], shape[1], shape[2] * channels])
    # [B, rows, W, C] -> [B, W, rows * C], so that the second product runs over columns.
    crop = tf.transpose(tf.reshape(crop, [shape[0], size, shape[2], channels]), [0, 2, 1, 3])
    crop = columns @ tf.reshape(crop, [shape[0], shape[2], size * channels])
    crop = tf.transpose(tf.reshape(crop, [shape[0], size, size, channels]), [0, 2, 1, 3])
    # The weights of a pixel add up to 1 only to within rounding.
    return tf.clip_by_value(crop, 0.0, 1.0)


def _weights(start: tf.Tensor, extent: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Returns [B, size, length]: how much each input pixel counts in each output pixel."""
    start, extent = start[:, tf.newaxis, tf.newaxis], extent[:, tf.newaxis, tf.newaxis]
    scale = extent / size
    centre = start + (tf.range(size, dtype=tf.float32)[tf.newaxis, :, tf.newaxis] + 0.5) * scale
    pixel = tf.range(tf.cast(length, tf.float32), dtype=tf.float32) + 0.5
    weight = tf.nn.relu(1.0 - tf.abs(pixel - centre) / tf.maximum(scale, 1.0))
    inside = (pixel > start) & (pixel < start + extent)
    weight = tf.where(inside, weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=-1, keepdims=True)


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Returns the images blurred, each with its own strength.

    Separable sum of shifted images, weights proportional to `exp(-d^2 / (2 sigma^2))`; borders are
    mirrored as in torchvision's `GaussianBlur`.

    Args:
        images: float32 [B, H, W, C]; H and W greater than `radius`.
        sigma: float32 [B], standard deviation in pixels, positive.
        radius: the kernel has `2 * radius + 1` taps.
    """
    distance = tf.range(-radius, radius + 1, dtype=tf.float32)
    weight = tf.exp(-0.5 * tf.square(distance / sigma[:, tf.newaxis]))
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    taps = tf.unstack(weight[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    padded = tf.pad(images, [[0, 0], [radius, radius], [0, 0], [0, 0]], "REFLECT")
    rows = tf.add_n([tap * padded[:, i : i + height] for i, tap in enumerate(taps)])
    padded = tf.pad(rows, [[0, 0], [0, 0], [radius, radius], [0, 0]], "REFLECT")
    blurred = tf.add_n([tap * padded[:, :, i : i + width] for i, tap in enumerate(taps)])
    return tf.clip_by_value(blurred, 0.0, 1.0)
