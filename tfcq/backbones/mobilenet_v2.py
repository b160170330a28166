"""MobileNetV2 (Sandler et al., 2018) with CIFAR and ImageNet strides and a free width."""

import keras
from keras import layers

from tfcq.backbones.convolution import conv_norm, depthwise_norm
from tfcq.errors import UserError, unknown_choice
from tfcq.settings.backbones import STEMS, standard_start

# Table 2 of the paper: expansion, channels, blocks and first stride of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_WIDTH = 32
_FEATURES = 1280
# Channels come in multiples of it, as in the authors' models.
_DIVISOR = 8


def mobilenet_v2(
    stem: str = "cifar",
    width: int = _WIDTH,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    kernel_initializer: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Returns a MobileNetV2 without classifier: images to globally pooled features.

    Strided convolutions pad symmetrically before a `valid` convolution, as PyTorch does, so that
    public checkpoints compute the same function here.

    Args:
        stem: `"imagenet"` (the paper's strides, 32 in all) or `"cifar"` (stride 1 in the stem and
            in the second stage, 8 in all).
        width: channels of the stem, a multiple of 8; 32 in the paper, whose width multiplier is
            `width` / 32. Channels of the other layers are multiples of 8 too.
        input_shape: height, width and channels of the images; height and width may be None.
        kernel_initializer: how convolutions start, see `conv_norm`; by default `"normal_fan_out"`
            with the stem for large images, `"uniform_fan_in"` with that for small ones.
        name: name of the model; `mobilenet_v2` by default.

    Returns:
        A functional model from float images [batch, height, width, channels] to float features
        [batch, 1280], or [batch, width * 40] for a width above 32.

    Raises:
        UserError: on an unknown stem or initializer, or a width that is not a positive multiple
            of 8.

    Example:

        >>> tfcq.mobilenet_v2("imagenet", input_shape=(64, 64, 3)).output_shape
        (None, 1280)
    """
    if stem not in STEMS:
        raise unknown_choice("stem", stem, STEMS)
    if width < 1 or width % _DIVISOR:
        nearest = _DIVISOR * max(1, round(width / _DIVISOR))
        raise UserError(
            f"Width {width} of a MobileNetV2 cannot be used; allowed: multiples of {_DIVISOR}. "
            f"The nearest is {nearest}."
        )
    small = stem == "cifar"
    multiplier = width / _WIDTH
    initializer = kernel_initializer or standard_start(stem)["kernel_initializer"]
    inputs = keras.Input(input_shape, name="images")
    x = conv_norm(inputs, width, 3, 1 if small else 2, "stem", initializer)
    x = layers.ReLU(max_value=6, name="stem_relu")(x)
    for stage, (expansion, channels, count, stride) in enumerate(_STAGES, start=1):
        for block in range(1, count + 1):
            step = stride if block == 1 and not (small and stage == 2) else 1
            prefix = f"stage{stage}_block{block}"
            outputs = _scaled(channels, multiplier)
            x = _inverted_residual(x, expansion, outputs, step, initializer, prefix)
    x = conv_norm(x, _scaled(_FEATURES, max(1.0, multiplier)), 1, 1, "last", initializer)
    x = layers.ReLU(max_value=6, name="last_relu")(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name=name or "mobilenet_v2")


def _scaled(channels: int, multiplier: float) -> int:
    """Returns the nearest multiple of 8, but never under 90 % of what was asked for."""
    asked = channels * multiplier
    scaled = max(_DIVISOR, int(asked + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return scaled if scaled >= 0.9 * asked else scaled + _DIVISOR


def _inverted_residual(
    x: keras.KerasTensor,
    expansion: int,
    channels: int,
    stride: int,
    initializer: str,
    name: str,
) -> keras.KerasTensor:
    """Returns a block: 1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection."""
    shortcut = x
    if expansion > 1:
        x = conv_norm(x, shortcut.shape[-1] * expansion, 1, 1, f"{name}_expand", initializer)
        x = layers.ReLU(max_value=6, name=f"{name}_expand_relu")(x)
    x = depthwise_norm(x, 3, stride, f"{name}_depthwise", initializer)
    x = layers.ReLU(max_value=6, name=f"{name}_depthwise_relu")(x)
    x = conv_norm(x, channels, 1, 1, f"{name}_project", initializer)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x
