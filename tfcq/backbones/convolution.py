"""A convolution and its batch norm, as every convolutional backbone here has them."""

import math

import keras
from keras import layers

from tfcq.errors import unknown_choice
from tfcq.nn.initializers import uniform_fan_in
from tfcq.settings.backbones import KERNEL_INITIALIZERS


def conv_norm(
    x: keras.KerasTensor,
    channels: int,
    kernel: int,
    stride: int,
    name: str,
    kernel_initializer: str = "uniform_fan_in",
    zero_norm: bool = False,
) -> keras.KerasTensor:
    """Returns a convolution without bias, and a batch norm behind it.

    Where the stride is above 1 it pads symmetrically before a `valid` convolution, as PyTorch
    does, so that public checkpoints compute the same function here.

    Args:
        x: float [batch, height, width, inputs].
        channels: channels of the result.
        kernel: height and width of the kernel, odd.
        stride: step of the kernel along height and width.
        name: name of the convolution; `<name>_pad` and `<name>_norm` are beside it.
        kernel_initializer: `"uniform_fan_in"`, in +-1/sqrt(inputs * kernel^2), or
            `"normal_fan_out"`, of variance 2 / (channels * kernel^2) (He et al., 2015, Eq. 14).
        zero_norm: whether the batch norm's scale starts at 0 instead of 1.

    Returns:
        Float [batch, ceil(height / stride), ceil(width / stride), channels].

    Raises:
        UserError: on an unknown initializer.
    """
    x, padding = _padded(x, kernel, stride, name)
    x = layers.Conv2D(
        channels,
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=(
            _normal_fan_out(channels, kernel)
            if _is_normal(kernel_initializer)
            else uniform_fan_in()
        ),
        name=name,
    )(x)
    return batch_norm(x, name, zero_norm)


def depthwise_norm(
    x: keras.KerasTensor,
    kernel: int,
    stride: int,
    name: str,
    kernel_initializer: str = "uniform_fan_in",
) -> keras.KerasTensor:
    """Returns a depthwise convolution without bias, and a batch norm behind it.

    Padding is that of `conv_norm`.

    Args:
        x: float [batch, height, width, channels].
        kernel: height and width of the kernel, odd.
        stride: step of the kernel along height and width.
        name: name of the convolution; `<name>_pad` and `<name>_norm` are beside it.
        kernel_initializer: as for `conv_norm`, with one input and, as torchvision counts, all
            channels as outputs.

    Returns:
        Float [batch, ceil(height / stride), ceil(width / stride), channels].

    Raises:
        UserError: on an unknown initializer.
    """
    x, padding = _padded(x, kernel, stride, name)
    # `uniform_fan_in` would count all channels as inputs, of which an output reads one.
    bound = 1 / kernel
    x = layers.DepthwiseConv2D(
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=(
            _normal_fan_out(x.shape[-1], kernel)
            if _is_normal(kernel_initializer)
            else keras.initializers.RandomUniform(-bound, bound)
        ),
        name=name,
    )(x)
    return batch_norm(x, name)


def _padded(
    x: keras.KerasTensor, kernel: int, stride: int, name: str
) -> tuple[keras.KerasTensor, str]:
    """Returns what to convolve, and the padding that is left to the convolution."""
    if stride > 1 and kernel > 1:
        return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    return x, "same"


def _is_normal(kernel_initializer: str) -> bool:
    if kernel_initializer not in KERNEL_INITIALIZERS:
        raise unknown_choice("kernel initializer", kernel_initializer, KERNEL_INITIALIZERS)
    return kernel_initializer == "normal_fan_out"


def _normal_fan_out(channels: int, kernel: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=math.sqrt(2 / (channels * kernel**2)))


def batch_norm(x: keras.KerasTensor, name: str, zero: bool = False) -> keras.KerasTensor:
    """Returns a batch norm of a tensor, with PyTorch's momentum and epsilon.

    Args:
        x: the tensor.
        name: what the layer's name begins with.
        zero: whether its factors begin at 0.
    """
    return layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        gamma_initializer="zeros" if zero else "ones",
        name=f"{name}_norm",
    )(x)
