"""From a quantizable model to the plain Keras model that a converter reads."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import cloned, without
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.layers import FLOAT_COUNTERPARTS, QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import Node, read_graph

KernelOf = Callable[[keras.layers.Layer], np.ndarray]


def float_kernel(layer: keras.layers.Layer) -> np.ndarray:
    """Returns a layer's kernel as it is.

    Args:
        layer: a convolution or dense layer.
    """
    return np.asarray(layer.kernel)


def fold(model: keras.Model, kernel_of: KernelOf = float_kernel) -> keras.Model:
    """Returns a plain float32 model with the same inference pass and fewer layers.

    Activation quantizers are gone, quantized layers are Keras's own, and a batch norm that alone
    reads a convolution or dense layer without activation function is part of that layer, which
    keeps its name:

        kernel' = kernel * factor    bias' = beta + (bias - mean) * factor
        factor = gamma / sqrt(variance + epsilon), per output channel

    Other batch norms stay. A `Normalization` of channels becomes a depthwise convolution of one
    pixel, since runtimes have no integer operation for it.

    Args:
        model: a functional model with one input, quantizable or not.
        kernel_of: gives the kernel to fold, float array, of a convolution or dense layer.

    Raises:
        UserError: on a model that is not functional, has several inputs or holds another model.
    """
    norms = folded_norms(model)
    dropped = set(norms.values())

    def clone_layer(layer: Any) -> Any:
        if _normalizes_channels(layer):
            return keras.layers.DepthwiseConv2D(1, dtype="float32", name=layer.name)
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):
            config["dtype"] = "float32"
        if layer.name in norms:
            config["use_bias"] = True
        config.pop("weight_quantizer", None)
        return FLOAT_COUNTERPARTS.get(type(layer), type(layer)).from_config(config)

    # A quantizer's layer is dropped like a folded norm: it hands its input on.
    dropped |= {layer.name for layer in model.layers if isinstance(layer, ActivationQuantizer)}
    source = model.inputs[0]
    inputs = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
    plain = cloned(model, clone_layer, without(dropped), inputs=inputs)
    for layer in plain.layers:
        if layer.weights:
            norm = norms.get(layer.name)
            original = model.get_layer(layer.name)
            weights = _weights(original, norm and model.get_layer(norm), kernel_of)
            give_weights(layer, weights)
    return plain


def _graph(model: keras.Model) -> dict[str, Node]:
    config = model.get_config()
    if not {"layers", "input_layers"} <= set(config) or len(model.inputs) != 1:
        raise UserError(
            f"Model {model.name!r} cannot be folded; allowed: a functional model with one input."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise UserError(
                f"Model {model.name!r} holds the model {layer.name!r}; allowed for deployment: "
                "layers only. Call the inner model's layers in the outer one."
            )
    return read_graph(config)


def _normalizes_channels(layer: Any) -> bool:
    """Whether a layer of images subtracts and divides by one number for each channel."""
    return (
        isinstance(layer, keras.layers.Normalization)
        and not layer.invert
        and tuple(layer.mean.shape) == (1, 1, 1, layer.output.shape[-1])
    )


def _has_kernel(layer: Any) -> bool:
    return type(layer) in QUANTIZED_COUNTERPARTS or type(layer) in FLOAT_COUNTERPARTS


def folded_norms(model: keras.Model) -> dict[str, str]:
    """Returns the batch norm that `fold` makes part of each layer, by that layer's name.

    Args:
        model: as for `fold`.

    Raises:
        UserError: as `fold` does.
    """
    nodes, norms = _graph(model), {}
    for norm in model.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        producers = nodes[norm.name].producers
        layer = model.get_layer(producers[0])
        if (
            len(producers) == 1
            and nodes[layer.name].consumers == [norm.name]
            and len(nodes[layer.name].producers) == 1
            and all(layer.output is not output for output in model.outputs)
            and _has_kernel(layer)
            and layer.activation is keras.activations.linear
            and norm.axis in (-1, len(norm.output.shape) - 1)
            and getattr(layer, "data_format", "channels_last") == "channels_last"
        ):
            norms[layer.name] = norm.name
    return norms


def _weights(
    layer: keras.layers.Layer, norm: keras.layers.Layer | None, kernel_of: KernelOf
) -> list[np.ndarray]:
    """Returns the weights of the plain layer, folded in float64."""
    if _normalizes_channels(layer):
        mean, variance = (np.asarray(v, np.float64).ravel() for v in (layer.mean, layer.variance))
        factor = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        return [factor.reshape(1, 1, -1, 1), -mean * factor]
    if not _has_kernel(layer):
        return layer.get_weights()
    kernel = np.asarray(kernel_of(layer), np.float64)
    bias = np.zeros(()) if layer.bias is None else np.asarray(layer.bias, np.float64)
    if norm is None:
        return [kernel] if layer.bias is None else [kernel, bias]
    variance = np.asarray(norm.moving_variance, np.float64)
    factor = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    bias = shift + (bias - np.asarray(norm.moving_mean, np.float64)) * factor
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        # Its output channels are the last two axes: input channel, then multiplier.
        return [kernel * factor.reshape(kernel.shape[2:]), bias]
    return [kernel * factor, bias]
