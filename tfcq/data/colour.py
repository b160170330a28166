"""Colour adjustments with one factor per image, as in torchvision.

Each result is clipped to [0, 1], as torchvision does after each step.
"""

import tensorflow as tf

# ITU-R BT.601, the weights of torchvision's `rgb_to_grayscale`.
_LUMA = (0.2989, 0.587, 0.114)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Returns the brightness of each pixel.

    Args:
        images: float32 [B, H, W, C], values in [0, 1]; C is 1 (returned as it is) or 3.

    Returns:
        float32 [B, H, W, 1], values in [0, 1].
    """
    if images.shape[-1] == 1:
        return images
    return tf.tensordot(images, tf.constant(_LUMA, images.dtype, [3, 1]), axes=1)


def adjust_brightness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image)`.

    Args:
        images: float32 [B, H, W, C], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    return _clip(images * factor)


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image + (1 - factor) * mean of the image's luma)`.

    Args:
        images: float32 [B, H, W, C], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    mean = tf.reduce_mean(luma(images), axis=(1, 2, 3), keepdims=True)
    return _clip(factor * images + (1 - factor) * mean)


def adjust_saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image + (1 - factor) * luma)`.

    Args:
        images: float32 [B, H, W, 3], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    return _clip(factor * images + (1 - factor) * luma(images))


def turn_hue(images: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Returns the images with their hue turned in HSV space.

    Args:
        images: float32 [B, H, W, 3], values in [0, 1].
        turn: float32 [B], in full turns, -0.5 to 0.5.
    """
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(images), axis=-1)
    hue = tf.math.floormod(hue + turn[:, tf.newaxis, tf.newaxis], 1.0)
    return _clip(tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], axis=-1)))


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)
