"""The head that draws the outline of an object in its box (Mask R-CNN; He et al., 2017)."""

import keras
import tensorflow as tf
from keras import layers

from tfcq.detection.masks import masks_in

_CONVOLUTIONS = 4


def mask_head(channels: int, width: int, classes: int, cells: int) -> keras.Model:
    """Returns the network from regions to a mask for each class, twice as fine.

    Args:
        channels: of the regions.
        width: of its convolutions.
        classes: number of classes.
        cells: of a region, a side.

    Returns:
        A functional model from regions [regions, cells, cells, channels] to logits
        [regions, 2 * cells, 2 * cells, classes].
    """
    inputs = keras.Input((cells, cells, channels), name="regions")
    x = layers.Activation("linear", name="mask_regions")(inputs)
    for number in range(1, _CONVOLUTIONS + 1):
        name = f"mask_conv{number}"
        x = layers.Conv2D(
            width, 3, padding="same", kernel_initializer=_normal_fan_out(), name=name
        )(x)  # fmt: skip
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = transposed_convolution(x, width, "mask_up")
    few = keras.initializers.RandomNormal(stddev=0.001)
    logits = layers.Conv2D(classes, 1, kernel_initializer=few, name="mask_logits")(x)
    return keras.Model(inputs, logits, name="mask_head")


def transposed_convolution(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Returns a transposed convolution of kernel and stride 2, and a ReLU.

    Its patches do not overlap: it is a dense layer of each cell to four of half the size, and
    written as one, since kernels of `Conv2DTranspose` cannot be quantized.

    Args:
        x: float [batch, height, width, channels], of a known size.
        width: channels of the result.
        name: name of the layer with the kernel, [1, 1, channels, 2 * 2 * width].
    """
    height, breadth = x.shape[1:3]
    x = layers.Conv2D(4 * width, 1, kernel_initializer=_normal_fan_out(), name=name)(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Reshape((height, breadth, 2, 2, width), name=f"{name}_cells")(x)
    x = layers.Permute((1, 3, 2, 4, 5), name=f"{name}_rows")(x)
    return layers.Reshape((2 * height, 2 * breadth, width), name=f"{name}_map")(x)


def _normal_fan_out() -> keras.initializers.Initializer:
    """Returns detectron2's c2_msra_fill, one for each layer: it takes its seed when it is made."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def of_class(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns each region's mask of one class.

    Args:
        logits: float [regions, side, side, classes].
        classes: int [regions].

    Returns:
        float [regions, side, side].
    """
    return tf.gather(logits, classes, axis=3, batch_dims=1)


def mask_loss(
    logits: tf.Tensor, masks: tf.Tensor, boxes: tf.Tensor, regions: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
    """Returns the binary cross-entropy of masks, a mean over the points of regions that count.

    Args:
        logits: of each region's class, float [regions, side, side].
        masks: of the box that each region learns, as large as the box, float [regions, S, S].
        boxes: that box, float [regions, 4].
        regions: float [regions, 4].
        counts: which regions count, bool [regions].
    """
    side = logits.shape[1]
    wanted = tf.cast(masks_in(masks, boxes, regions, side, side) >= 0.5, logits.dtype)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    weights = tf.cast(counts, logits.dtype)
    of_region = weights * tf.reduce_mean(entropy, axis=[1, 2])
    return tf.reduce_sum(of_region) / tf.maximum(tf.reduce_sum(weights), 1.0)
