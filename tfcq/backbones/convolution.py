"""A convolution and its batch norm, as every convolutional backbone here has them."""

import keras
from keras import layers

from tfcq.nn.initializers import uniform_fan_in


def conv_norm(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str
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

    Returns:
        Float [batch, ceil(height / stride), ceil(width / stride), channels].
    """
    x, padding = _padded(x, kernel, stride, name)
    x = layers.Conv2D(
        channels,
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=uniform_fan_in(),
        name=name,
    )(x)
    return _norm(x, name)


def depthwise_norm(x: keras.KerasTensor, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    """Returns a depthwise convolution without bias, and a batch norm behind it.

    Padding and initial weights are those of `conv_norm`.

    Args:
        x: float [batch, height, width, channels].
        kernel: height and width of the kernel, odd.
        stride: step of the kernel along height and width.
        name: name of the convolution; `<name>_pad` and `<name>_norm` are beside it.

    Returns:
        Float [batch, ceil(height / stride), ceil(width / stride), channels].
    """
    x, padding = _padded(x, kernel, stride, name)
    # Uniform in +-1/sqrt(inputs) too: `uniform_fan_in` would count all channels as inputs, of
    # which an output of this layer reads one.
    bound = 1 / kernel
    x = layers.DepthwiseConv2D(
        kernel,
        stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=keras.initializers.RandomUniform(-bound, bound),
        name=name,
    )(x)
    return _norm(x, name)


def _padded(
    x: keras.KerasTensor, kernel: int, stride: int, name: str
) -> tuple[keras.KerasTensor, str]:
    """Returns what to convolve, and the padding that is left to the convolution."""
    if stride > 1 and kernel > 1:
        return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    return x, "same"


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
