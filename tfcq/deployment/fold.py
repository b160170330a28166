"""From a quantizable model to the plain Keras model that a converter reads."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import cloned, without
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.float_model import float_layer
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

    Other batch norms stay. What scales and shifts the images first, `Rescaling` and `Normalization`
    of channels, becomes one depthwise convolution of one pixel, since runtimes have no integer
    operation for it, or nothing where together they leave the images as they are.

    Args:
        model: a functional model with one input, quantizable or not.
        kernel_of: gives the kernel to fold, float array, of a convolution or dense layer.

    Raises:
        UserError: on a model that is not functional, has several inputs or holds another model.
    """
    norms = folded_norms(model)
    scalings = _scalings(model)
    dropped = set(norms.values()) | {scaling.name for scaling in scalings[1:]}
    if scalings and _is_identity(scalings):
        dropped.add(scalings[0].name)

    def clone_layer(layer: Any) -> Any:
        if scalings and layer is scalings[0]:
            return keras.layers.DepthwiseConv2D(1, dtype="float32", name=layer.name)
        changes: dict[str, Any] = {"dtype": "float32"}
        if layer.name in norms:
            changes["use_bias"] = True
        if getattr(layer, "lora_enabled", False):
            # Its `kernel` is the sum already.
            changes["lora_rank"] = None
        return float_layer(layer, **changes)

    # A quantizer's layer is dropped like a folded norm: it hands its input on.
    dropped |= {layer.name for layer in model.layers if isinstance(layer, ActivationQuantizer)}
    source = model.inputs[0]
    inputs = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
    plain = cloned(model, clone_layer, without(dropped), inputs=inputs)
    for layer in plain.layers:
        if scalings and layer.name == scalings[0].name:
            give_weights(layer, _scaling_weights(scalings))
        elif layer.weights:
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


def _scalings(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that scale and shift channels of the images before any other layer."""
    nodes, found = _graph(model), []
    operations = {operation.name: operation for operation in model.operations}
    (name,) = (node.name for node in nodes.values() if not node.producers)
    while len(nodes[name].consumers) == 1 and not _is_output(model, operations[name]):
        (name,) = nodes[name].consumers
        if not _scales_channels(operations[name]):
            break
        found.append(operations[name])
    return found


def _is_output(model: keras.Model, operation: Any) -> bool:
    return any(operation.output is output for output in model.outputs)


def _scales_channels(layer: Any) -> bool:
    """Whether a layer of images multiplies by and adds one number for each channel."""
    if isinstance(layer, keras.layers.Rescaling):
        numbers = (np.shape(layer.scale), np.shape(layer.offset))
        return len(layer.output.shape) == 4 and all(len(shape) <= 1 for shape in numbers)
    return (
        isinstance(layer, keras.layers.Normalization)
        and not layer.invert
        and tuple(layer.mean.shape) == (1, 1, 1, layer.output.shape[-1])
    )


def _scaling_weights(scalings: list[keras.layers.Layer]) -> list[np.ndarray]:
    """Returns factor and shift of all together, in float64, as weights of a convolution."""
    channels = scalings[0].output.shape[-1]
    factor, shift = np.ones(channels), np.zeros(channels)
    for layer in scalings:
        if isinstance(layer, keras.layers.Rescaling):
            times, plus = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        else:
            mean, variance = (
                np.asarray(v, np.float64).ravel() for v in (layer.mean, layer.variance)
            )
            times = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
            plus = -mean * times
        factor, shift = factor * times, shift * times + plus
    return [factor.reshape(1, 1, -1, 1), shift]


def _is_identity(scalings: list[keras.layers.Layer]) -> bool:
    factor, shift = _scaling_weights(scalings)
    return bool(np.allclose(factor, 1, atol=1e-6) and np.allclose(shift, 0, atol=1e-6))


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
    operations = {operation.name: operation for operation in model.operations}
    for norm in model.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        producers = nodes[norm.name].producers
        layer = operations[producers[0]]
        if (
            len(producers) == 1
            and nodes[layer.name].consumers == [norm.name]
            and len(nodes[layer.name].producers) == 1
            and not _is_output(model, layer)
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
