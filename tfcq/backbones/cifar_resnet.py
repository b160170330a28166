"""The narrow ResNets of depth 6n + 2 for small images (He et al., 2016, Sec. 4.2)."""

import functools
from collections.abc import Callable

import keras
from keras import layers

from tfcq.backbones.convolution import conv_norm
from tfcq.errors import UserError, unknown_choice
from tfcq.settings.backbones import SHORTCUTS

_STAGES = 3


def cifar_resnet(
    depth: int = 20,
    width: int = 16,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    shortcut: str = "identity",
    kernel_initializer: str = "uniform_fan_in",
    zero_init_residual: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Returns a ResNet of depth 6n + 2 without classifier: images to globally pooled features.

    A 3x3 convolution, then three stages of n blocks of two 3x3 convolutions each, with `width`,
    2 `width` and 4 `width` channels, at the image's resolution, a half and a quarter of it.

    Where a stage begins, the paper's networks for these images have shortcuts without parameters
    (option A): every second row and column, zeros for the channels that are new. The published
    numbers of parameters are those. `"projection"` (option B) has a 1x1 convolution there.

    Args:
        depth: 6n + 2 layers with weights, the classifier that is not here counted: 20, 32, 44,
            56, 74, 110 or 152, for example.
        width: channels of the first stage; 16 in the paper.
        input_shape: height, width and channels of the images; height and width may be None.
        shortcut: `"identity"` (option A) or `"projection"` (option B).
        kernel_initializer: how convolutions start, see `conv_norm`.
        zero_init_residual: whether the last batch norm of each residual branch starts at zero, so
            that every block starts as its shortcut.
        name: name of the model; `cifar_resnet<depth>` by default.

    Returns:
        A functional model from float images [batch, height, width, channels] to float features
        [batch, width * 4].

    Raises:
        UserError: on a depth that is not 6n + 2, an unknown shortcut or initializer, or a width
            that is not positive.

    Example:

        >>> tfcq.cifar_resnet(20).output_shape
        (None, 64)
    """
    count = max(1, round((depth - 2) / (2 * _STAGES)))
    if depth != 2 * _STAGES * count + 2:
        raise UserError(
            f"CIFAR ResNet depth {depth} cannot be used; allowed: 6n + 2, such as 20, 32, 44, 56, "
            f"110. The nearest is {2 * _STAGES * count + 2}."
        )
    if shortcut not in SHORTCUTS:
        raise unknown_choice("shortcut", shortcut, SHORTCUTS)
    if width < 1:
        raise UserError(f"Width {width} cannot be used; allowed: 1 and above. The nearest is 1.")
    inputs = keras.Input(input_shape, name="images")
    conv = functools.partial(conv_norm, kernel_initializer=kernel_initializer)
    x = conv(inputs, width, 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage in range(_STAGES):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            channels, prefix = width * 2**stage, f"stage{stage + 1}_block{block + 1}"
            x = _block(x, channels, stride, shortcut, conv, zero_init_residual, prefix)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name=name or f"cifar_resnet{depth}")


def _block(
    x: keras.KerasTensor,
    channels: int,
    stride: int,
    shortcut: str,
    conv: Callable[..., keras.KerasTensor],
    zero: bool,
    name: str,
) -> keras.KerasTensor:
    beside = x
    if stride != 1 and shortcut == "identity":
        beside = _subsampled(x, channels, stride, f"{name}_shortcut")
    elif stride != 1:
        beside = conv(x, channels, 1, stride, f"{name}_shortcut")
    x = conv(x, channels, 3, stride, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv(x, channels, 3, 1, f"{name}_conv2", zero_norm=zero)
    x = layers.Add(name=f"{name}_add")([x, beside])
    return layers.ReLU(name=f"{name}_relu")(x)


def _subsampled(x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
    """Returns every `stride`-th row and column, between channels of zeros."""
    # A window of one value keeps that value, hence its grid, and runtimes know the operation.
    x = layers.MaxPooling2D(1, stride, name=f"{name}_pool")(x)
    added = channels - x.shape[-1]
    before = added // 2
    # Taken as channels first, the axes that are padded are the last two: width and channels.
    return layers.ZeroPadding2D(
        ((0, 0), (before, added - before)), data_format="channels_first", name=f"{name}_pad"
    )(x)
