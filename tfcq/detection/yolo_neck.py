"""YOLOv4's neck: spatial pyramid pooling and path aggregation, and an output on each of its levels.

Convolutions stand in YOLOv4's places with its batch norms and leaky ReLUs, whose few negative
values the zero point of min-max ranges takes in. A level is half as wide as the features that it
reads, as there, and no wider than there: a ResNet-50's are four times as wide as a ResNet-18's.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfcq.backbones.convolution import conv_norm

# Cells a side of the neighbourhoods that are pooled.
_POOLS = (5, 9, 13)
# YOLOv4's own widths, from the finest level on.
_WIDEST = (128, 256, 512)
_LEAK = 0.1
# Of a hundred anchors about one has an object: what is learned first without this (Lin et al.,
# 2017, Sec. 4.1) is that there is nothing.
_FIRST_OBJECTNESS = math.log(0.01 / 0.99)
# Every layer here has it before its name.
PREFIX = "neck_"


def with_yolo_outputs(
    images: keras.KerasTensor,
    features: Sequence[keras.KerasTensor],
    classes: int,
    anchors: int = 3,
    depth: int = 5,
    name: str = "network",
) -> keras.Model:
    """Returns a network with neck and outputs behind its features.

    Args:
        images: what the features are computed from, float [batch, H, W, channels].
        features: at three strides, each twice the one before.
        classes: number of classes.
        anchors: of a cell.
        depth: convolutions where levels join, 5 as the authors have; around the pooling 3 at most.
        name: its name.

    Returns:
        A functional model to [batch, anchors of all cells, 5 + classes]: changes of y, x, height
        and width, the logit of there being an object, and those of its class. The finest level
        comes first, a level row by row, and the anchors of a cell stand behind each other.
    """
    levels = aggregated(features, depth)
    outputs = [
        _output(x, 2 * _widths(features)[level], classes, anchors, f"output{level + 1}")
        for level, x in enumerate(levels)
    ]
    joined = layers.Concatenate(axis=1, name=f"{PREFIX}outputs")(outputs)
    model = keras.Model(images, joined, name=name)
    for level in range(len(levels)):
        bias = model.get_layer(f"{PREFIX}output{level + 1}_logits").bias
        values = np.zeros((anchors, 5 + classes), np.float32)
        values[:, 4] = _FIRST_OBJECTNESS
        bias.assign(values.reshape(-1))
    return model


def aggregated(features: Sequence[keras.KerasTensor], depth: int = 5) -> list[keras.KerasTensor]:
    """Returns features of the same strides that have seen those of all others.

    Args:
        features: from the finest to the coarsest, each at twice the stride of the one before.
        depth: as for `with_yolo_outputs`.
    """
    widths, last = _widths(features), len(features) - 1
    around = min(depth, 3)
    x = _pooled(_convs(features[last], widths[last], around, "top"))
    levels = [_convs(x, widths[last], around, "pooled")]
    for level in reversed(range(last)):
        above = _conv(levels[0], widths[level], 1, f"above{level + 1}")
        above = layers.UpSampling2D(2, name=f"{PREFIX}up{level + 1}")(above)
        side = _conv(features[level], widths[level], 1, f"side{level + 1}")
        joined = layers.Concatenate(name=f"{PREFIX}down{level + 1}_joined")([side, above])
        levels.insert(0, _convs(joined, widths[level], depth, f"down{level + 1}"))
    for level in range(1, last + 1):
        below = _conv(levels[level - 1], widths[level], 3, f"below{level + 1}", stride=2)
        joined = layers.Concatenate(name=f"{PREFIX}path{level + 1}_joined")([below, levels[level]])
        levels[level] = _convs(joined, widths[level], depth, f"path{level + 1}")
    return levels


def _widths(features: Sequence[keras.KerasTensor]) -> list[int]:
    return [
        min(max(x.shape[-1] // 2, 1), widest) for x, widest in zip(features, _WIDEST, strict=True)
    ]


def _pooled(x: keras.KerasTensor) -> keras.KerasTensor:
    pools = [
        layers.MaxPooling2D(size, 1, padding="same", name=f"{PREFIX}pool{size}")(x)
        for size in _POOLS
    ]
    return layers.Concatenate(name=f"{PREFIX}pools_joined")([x, *pools])


def _convs(x: keras.KerasTensor, channels: int, count: int, name: str) -> keras.KerasTensor:
    """Returns what convolutions of 1 and 3 cells by turns compute, those of 3 twice as wide."""
    for number in range(1, count + 1):
        kernel, width = (1, channels) if number % 2 else (3, 2 * channels)
        x = _conv(x, width, kernel, f"{name}_{number}")
    return x


def _conv(
    x: keras.KerasTensor, channels: int, kernel: int, name: str, stride: int = 1
) -> keras.KerasTensor:
    x = conv_norm(x, channels, kernel, stride, f"{PREFIX}{name}", "normal_fan_out")
    return layers.LeakyReLU(negative_slope=_LEAK, name=f"{PREFIX}{name}_relu")(x)


def _output(
    x: keras.KerasTensor, channels: int, classes: int, anchors: int, name: str
) -> keras.KerasTensor:
    x = _conv(x, channels, 3, name)
    x = layers.Conv2D(
        anchors * (5 + classes),
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name=f"{PREFIX}{name}_logits",
    )(x)
    return layers.Reshape((-1, 5 + classes), name=f"{PREFIX}{name}_anchors")(x)
