"""Colour adjustments with one factor per image, as in torchvision.

Images are planes of one colour each, [B, C, H, W]. Each result is clipped to [0, 1], as torchvision
does after each step.
"""

import tensorflow as tf

# ITU-R BT.601, the weights of torchvision's `rgb_to_grayscale`.
_LUMA = (0.2989, 0.587, 0.114)


def luma(planes: tf.Tensor) -> tf.Tensor:
    """Returns the brightness of each pixel.

    Args:
        planes: float32 [B, C, H, W], values in [0, 1]; C is 1 (returned as it is) or 3.

    Returns:
        float32 [B, 1, H, W], values in [0, 1].
    """
    if planes.shape[1] == 1:
        return planes
    red, green, blue = tf.split(planes, 3, axis=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def adjust_brightness(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image)`.

    Args:
        planes: float32 [B, C, H, W], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    return _clip(planes * factor)


def adjust_contrast(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image + (1 - factor) * mean of the image's luma)`.

    Args:
        planes: float32 [B, C, H, W], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    mean = tf.reduce_mean(luma(planes), axis=(1, 2, 3), keepdims=True)
    return _clip(factor * planes + (1 - factor) * mean)


def adjust_saturation(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `clip(factor * image + (1 - factor) * luma)`.

    Args:
        planes: float32 [B, 3, H, W], values in [0, 1].
        factor: float32 [B, 1, 1, 1], 0 or more.
    """
    return _clip(factor * planes + (1 - factor) * luma(planes))


def turn_hue(planes: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Returns the images with their hue turned as in HSV space.

    With value V, chroma C and hue h in sixths of a turn, a colour is
    `V - C * clip(min(k, 4 - k), 0, 1)`, where k is h + 5 (red), h + 3 (green) or h + 1 (blue)
    modulo 6: the way to HSV and back in one step. A rotation in RGB is another thing, for it keeps
    neither V nor C.

    Args:
        planes: float32 [B, 3, H, W], values in [0, 1].
        turn: float32 [B, 1, 1, 1], in full turns, -0.5 to 0.5.
    """
    red, green, blue = tf.split(planes, 3, axis=1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per_chroma = tf.math.divide_no_nan(1.0, chroma)
    from_red = (green - blue) * per_chroma
    from_green = (blue - red) * per_chroma + 2.0
    from_blue = (red - green) * per_chroma + 4.0
    hue = tf.where(value == red, from_red, tf.where(value == green, from_green, from_blue))
    place = (hue + 6.0 * turn + tf.constant([5.0, 3.0, 1.0], shape=[3, 1, 1])) / 6.0
    place = 6.0 * (place - tf.floor(place))
    return _clip(value - chroma * _clip(tf.minimum(place, 4.0 - place)))


def _clip(planes: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(planes, 0.0, 1.0)
