"""ResNet-18, 34 and 50 (He et al., 2016) with CIFAR and ImageNet stems and a free width."""

import functools
from collections.abc import Callable

import keras
from keras import layers

from tfcq.backbones.convolution import conv_norm
from tfcq.errors import UserError, unknown_choice
from tfcq.settings.backbones import STEMS, standard_start

# Blocks of each stage, and whether they are bottlenecks.
_DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
_EXPANSION = 4


def resnet(
    depth: int = 18,
    stem: str = "cifar",
    width: int = 64,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    blocks: tuple[int, ...] | None = None,
    kernel_initializer: str | None = None,
    zero_init_residual: bool | None = None,
    name: str | None = None,
) -> keras.Model:
    """Returns a ResNet without classifier: images to globally pooled features.

    Strided convolutions pad symmetrically before a `valid` convolution, as PyTorch does, so that
    public checkpoints compute the same function here.

    Args:
        depth: 18, 34 or 50.
        stem: `"cifar"` (3x3 convolution) or `"imagenet"` (7x7 stride 2 and 3x3 max pooling).
        width: channels of the first stage; 64 in the paper.
        input_shape: height, width and channels of the images; height and width may be None.
        blocks: blocks of each stage, to depart from the depth's own.
        kernel_initializer: how convolutions start, see `conv_norm`; by default `"normal_fan_out"`
            with the stem for large images, `"uniform_fan_in"` with that for small ones.
        zero_init_residual: whether the last batch norm of each residual branch starts at zero, so
            that every block starts as its shortcut; by default with the stem for large images.
        name: name of the model; `resnet<depth>` by default.

    Returns:
        A functional model from float images [batch, height, width, channels] to float features
        [batch, width * 8], or [batch, width * 32] for depth 50.

    Raises:
        UserError: on an unknown depth, stem or initializer, or a width that is not positive.

    Example:

        >>> tfcq.resnet(18, "cifar").output_shape, tfcq.resnet(50, "imagenet", width=8).output_shape
        ((None, 512), (None, 256))
    """
    if depth not in _DEPTHS:
        raise UserError(f"Unknown ResNet depth {depth}; allowed: {', '.join(map(str, _DEPTHS))}.")
    if stem not in STEMS:
        raise unknown_choice("stem", stem, STEMS)
    if width < 1:
        raise UserError(f"Width {width} cannot be used; allowed: 1 and above. The nearest is 1.")
    start = standard_start(stem)
    conv = functools.partial(
        conv_norm, kernel_initializer=kernel_initializer or start["kernel_initializer"]
    )
    zero = start["zero_init_residual"] if zero_init_residual is None else zero_init_residual
    stage_blocks, bottleneck = _DEPTHS[depth]
    inputs = keras.Input(input_shape, name="images")
    if stem == "cifar":
        x = conv(inputs, width, 3, 1, "stem")
        x = layers.ReLU(name="stem_relu")(x)
    else:
        x = conv(inputs, width, 7, 2, "stem")
        x = layers.ReLU(name="stem_relu")(x)
        # After a ReLU zeros are as good a border as minus infinity.
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, count in enumerate(blocks or stage_blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            channels = width * 2**stage
            prefix = f"stage{stage + 1}_block{block + 1}"
            x = _block(x, channels, stride, bottleneck, conv, zero, prefix)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name=name or f"resnet{depth}")


def _block(
    x: keras.KerasTensor,
    channels: int,
    stride: int,
    bottleneck: bool,
    conv: Callable[..., keras.KerasTensor],
    zero: bool,
    name: str,
) -> keras.KerasTensor:
    outputs = channels * (_EXPANSION if bottleneck else 1)
    shortcut = x
    if stride != 1 or x.shape[-1] != outputs:
        shortcut = conv(x, outputs, 1, stride, f"{name}_shortcut")
    # (kernel, channels, stride) of each convolution on the residual branch.
    if bottleneck:
        plan = [(1, channels, 1), (3, channels, stride), (1, outputs, 1)]
    else:
        plan = [(3, channels, stride), (3, outputs, 1)]
    for index, (kernel, width, step) in enumerate(plan, start=1):
        last = index == len(plan)
        x = conv(x, width, kernel, step, f"{name}_conv{index}", zero_norm=zero and last)
        if not last:
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)
