"""Crops, resizing and blur with different parameters for every image of a batch."""

import numpy as np
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
    centres as torchvision and Pillow do. Resizing is linear and separable, hence two matrix
    products.

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
    rows = _weights(top, height, tf.shape(images)[1], output_size)
    columns = _weights(left, width, tf.shape(images)[2], output_size)
    columns = tf.where(flip[:, tf.newaxis, tf.newaxis], columns[:, ::-1], columns)
    return _separable(images, rows, columns)


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

    Weights are proportional to `exp(-d^2 / (2 sigma^2))` for distances d up to `radius`; borders
    are mirrored as in torchvision's `GaussianBlur`.

    Args:
        images: float32 [B, S, S, C], values in [0, 1]; S static and greater than `radius`.
        sigma: float32 [B], standard deviation in pixels, positive.
        radius: the kernel has `2 * radius + 1` taps.

    Returns:
        float32 [B, S, S, C], values in [0, 1].
    """
    size = images.shape[1]
    distance = tf.range(-radius, radius + 1, dtype=tf.float32)
    weight = tf.exp(-0.5 * tf.square(distance / sigma[:, tf.newaxis]))
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    matrix = tf.tensordot(weight, _shifts(size, radius), axes=1)
    return _separable(images, matrix, matrix)


def _shifts(size: int, radius: int) -> np.ndarray:
    """Returns [taps, size, size]: which pixel each tap of each pixel reads, borders mirrored."""
    pixel = np.arange(size)
    read = np.stack([pixel + tap for tap in range(-radius, radius + 1)])
    read = size - 1 - np.abs(size - 1 - np.abs(read))
    return (read[:, :, np.newaxis] == pixel).astype(np.float32)


def _separable(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns `rows @ image @ transpose(columns)` of each channel, as float32 [B, S, S, C]."""
    shape, size, channels = tf.shape(images), rows.shape[1], images.shape[-1]
    result = rows @ tf.reshape(images, [shape[0], shape[1], shape[2] * channels])
    # [B, S, W, C] -> [B, W, S * C], so that the second product runs over columns.
    result = tf.transpose(tf.reshape(result, [shape[0], size, shape[2], channels]), [0, 2, 1, 3])
    result = columns @ tf.reshape(result, [shape[0], shape[2], size * channels])
    result = tf.transpose(tf.reshape(result, [shape[0], size, size, channels]), [0, 2, 1, 3])
    # The weights of a pixel add up to 1 only to within rounding.
    return tf.clip_by_value(result, 0.0, 1.0)
