"""Regions of feature maps at one size: RoIAlign (He et al., 2017) on TensorFlow's own operation.

Equal to torchvision's `roi_align(..., sampling_ratio=2, aligned=True)`. `crop_and_resize` samples
a region where it is told to, but reads zeros half a pixel beyond the map, where RoIAlign reads the
border up to a whole one: so the map gets its border once more on each side.
"""

from collections.abc import Sequence

import tensorflow as tf

# A box of this size belongs on the level of stride 16, FPN's fourth.
_CANONICAL_SIZE, _CANONICAL_LEVEL = 224.0, 4


def roi_align(
    features: tf.Tensor, boxes: tf.Tensor, size: int, stride: int, samples: int = 2
) -> tf.Tensor:
    """Returns each region of a feature map as a map of `size` cells a side.

    Args:
        features: float [batch, height, width, channels].
        boxes: regions of each image in pixels of the image, float [batch, N, 4].
        size: cells of the result, a side.
        stride: pixels of the image to a cell of the features.
        samples: points that a cell is the mean of, a side.

    Returns:
        [batch, N, size, size, channels], of the features' dtype. No gradient goes to the boxes.
    """
    batch, count = tf.unstack(tf.shape(boxes)[:2])
    of_image = tf.repeat(tf.range(batch), count)
    found = _aligned(
        _bordered(features), tf.reshape(boxes, [-1, 4]), of_image, size, stride, samples
    )
    shape = [-1, count, size, size, features.shape[-1]]
    return tf.cast(tf.reshape(found, shape), features.dtype)


def pyramid_align(
    levels: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    size: int,
    strides: Sequence[int],
    samples: int = 2,
) -> tf.Tensor:
    """Returns each region of the level of a feature pyramid that its size belongs to.

    Args:
        levels: features of each level, float [batch, height, width, channels], finest first.
        boxes: as for `roi_align`.
        size: as for `roi_align`.
        strides: pixels of the image to a cell of each level, each twice the one before.
        samples: as for `roi_align`.

    Returns:
        [batch, N, size, size, channels], of the features' dtype.
    """
    batch, count = tf.unstack(tf.shape(boxes)[:2])
    of_image = tf.repeat(tf.range(batch), count)
    boxes = tf.reshape(boxes, [-1, 4])
    level = level_of(boxes, strides)
    places = [tf.where(level == number)[:, 0] for number in range(len(strides))]
    found = [
        _aligned(
            _bordered(features), tf.gather(boxes, place), tf.gather(of_image, place), size, stride,
            samples,
        )
        for features, stride, place in zip(levels, strides, places, strict=True)
    ]  # fmt: skip
    places = [tf.cast(place, tf.int32) for place in places]
    shape = [-1, count, size, size, levels[0].shape[-1]]
    return tf.cast(tf.reshape(tf.dynamic_stitch(places, found), shape), levels[0].dtype)


def level_of(boxes: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """Returns which level of a feature pyramid each box belongs to (FPN, Eq. 1).

    Args:
        boxes: float [..., 4].
        strides: pixels of the image to a cell of each level.

    Returns:
        int32 [...], from 0 for the finest.
    """
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    length = tf.sqrt(sides[..., 0] * sides[..., 1])
    exact = _CANONICAL_LEVEL + tf.math.log(length / _CANONICAL_SIZE + 1e-8) / tf.math.log(2.0)
    finest = int(strides[0]).bit_length() - 1
    level = tf.cast(tf.floor(exact), tf.int32) - finest
    return tf.clip_by_value(level, 0, len(strides) - 1)


def _bordered(features: tf.Tensor) -> tf.Tensor:
    # The operation knows no bfloat16, and gives float32 of all.
    features = tf.cast(features, tf.float32)
    return tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")


def _aligned(
    bordered: tf.Tensor, boxes: tf.Tensor, of_image: tf.Tensor, size: int, stride: int, samples: int
) -> tf.Tensor:
    """Returns regions [N, size, size, channels]; the points of a cell are read one by one.

    All at once, they would take the memory of `samples` squared results.
    """
    # Of a network that diverges the loss tells; here it would end in TensorFlow's own error.
    boxes = tf.where(tf.math.is_finite(boxes), tf.stop_gradient(boxes), 0.0) / stride
    # The border moves all by one cell; values stand in the middle of theirs.
    corner, sides = boxes[:, :2] + 0.5, boxes[:, 2:] - boxes[:, :2]
    last = tf.cast(tf.shape(bordered)[1:3] - 1, boxes.dtype)
    total: tf.Tensor = 0.0
    for row in range(samples):
        for column in range(samples):
            shift = tf.constant([row + 0.5, column + 0.5], boxes.dtype) / samples
            first = corner + shift * sides / size
            points = tf.concat([first, first + sides * (size - 1) / size], axis=1)
            read = tf.image.crop_and_resize(
                bordered, points / tf.concat([last, last], 0), of_image, [size, size]
            )
            total = total + read
    return total / samples**2
