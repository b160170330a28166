"""Crops, resizing and blur with different parameters for every image."""

import tensorflow as tf


def crop_resize(
    planes: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    output_size: int,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Returns one crop of each image, resized (bilinear, antialiased) and perhaps flipped.

    Equals `crop_resize_one` of each image, without a call for each. Resizing is linear and
    separable, hence two matrix products.

    Args:
        planes: float32 [B, C, H, W].
        top: float32 [B], first row of the crop, whole pixels.
        left: float32 [B], first column, whole pixels.
        height: float32 [B], rows of the crop, whole pixels, 1 or more.
        width: float32 [B], columns of the crop.
        output_size: height and width of the result, in pixels.
        flip: bool [B], whether the result is mirrored left to right.

    Returns:
        float32 [B, C, output_size, output_size].
    """
    rows = _weights(top, height, tf.shape(planes)[2], output_size)
    columns = _weights(left, width, tf.shape(planes)[3], output_size)
    columns = tf.where(flip[:, tf.newaxis, tf.newaxis], columns[:, ::-1], columns)
    return _separable(planes, rows, columns)


def crop_resize_one(
    image: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    output_size: int,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Returns a crop of one image, as `crop_resize` does; its time does not grow with the rest.

    `tf.image.crop_and_resize` would not do: it neither filters when it shrinks nor places pixel
    centres as torchvision and Pillow do.

    Args:
        image: [H, W, C], of any type.
        top: float32 [], as are all others; see `crop_resize`.
        left: first column.
        height: rows of the crop.
        width: columns of the crop.
        output_size: height and width of the result, in pixels.
        flip: bool [], whether the result is mirrored left to right.

    Returns:
        float32 [output_size, output_size, C], in the image's units.
    """
    top, left, height, width = (tf.cast(side, tf.int32) for side in (top, left, height, width))
    crop = image[top : top + height, left : left + width]
    crop = tf.cond(flip, lambda: crop[:, ::-1], lambda: crop)
    size = [output_size, output_size]
    # What grows needs no filter, whose way takes three times as long to the same result.
    grows = tf.maximum(height, width) <= output_size
    return tf.cond(
        grows,
        lambda: tf.image.resize(crop, size),
        lambda: tf.image.resize(crop, size, antialias=True),
    )


def _weights(start: tf.Tensor, extent: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Returns [B, size, length]: how much each input pixel counts in each output pixel."""
    start, extent = start[:, tf.newaxis, tf.newaxis], extent[:, tf.newaxis, tf.newaxis]
    scale = extent / size
    reach = tf.maximum(scale, 1.0)
    centre = start + (tf.range(size, dtype=tf.float32)[tf.newaxis, :, tf.newaxis] + 0.5) * scale
    pixel = tf.range(tf.cast(length, tf.float32), dtype=tf.float32) + 0.5
    # 1 within the crop and 0 beyond, so that nothing is left of the weights there.
    inside = tf.cast((pixel > start) & (pixel < start + extent), tf.float32)
    weight = tf.nn.relu(inside - tf.abs(pixel / reach - centre / reach))
    return weight / tf.reduce_sum(weight, axis=-1, keepdims=True)


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Returns the images blurred, each with its own strength.

    Weights are proportional to `exp(-d^2 / (2 sigma^2))` for distances d up to `radius`; borders
    are mirrored as in torchvision's `GaussianBlur`.

    Args:
        images: float32 [B, S, S, C], values in [0, 1]; S and C static, S greater than `radius`.
        sigma: float32 [B], standard deviation in pixels, positive.
        radius: the kernel has `2 * radius + 1` taps.

    Returns:
        float32 [B, S, S, C], values in [0, 1].
    """
    size, channels = images.shape[2:]
    # Images beside each other, as channels of one: a convolution has one kernel for all images.
    count = tf.shape(images)[0]
    flat = tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, size, size, count * channels])
    weight = tf.exp(-0.5 * tf.square(tf.range(-radius, radius + 1.0)[:, tf.newaxis] / sigma))
    weight = tf.repeat(weight / tf.reduce_sum(weight, axis=0), channels, axis=1)
    edge = [radius, radius]
    flat = tf.pad(flat, [[0, 0], edge, edge, [0, 0]], "REFLECT")
    for kernel in (weight[:, tf.newaxis, :, tf.newaxis], weight[tf.newaxis, :, :, tf.newaxis]):
        flat = tf.nn.depthwise_conv2d(flat, kernel, [1, 1, 1, 1], "VALID")
    blurred = tf.transpose(tf.reshape(flat, [size, size, count, channels]), [2, 0, 1, 3])
    return tf.clip_by_value(blurred, 0.0, 1.0)


def _separable(planes: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns `rows @ plane @ transpose(columns)` of each plane, as float32 [B, C, S, S]."""
    result = rows[:, tf.newaxis] @ planes
    result = tf.matmul(result, columns[:, tf.newaxis], transpose_b=True)
    # The weights of a pixel add up to 1 only to within rounding.
    return tf.clip_by_value(result, 0.0, 1.0)
