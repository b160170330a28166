"""A flat model with its constants of channels made part of kernels."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcq.integer.flat import Flattening
from tfcq.integer.layers import ChannelAffine
from tfcq.integer.replay import output_names
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import cloned, functional, same_layer
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import Node, read_graph
from tfcq.settings.policies import INT8, Policy


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """A plain float32 model with the inference pass of another one and fewer layers.

    Args:
        model: the model.
        origins: by the name of a layer, that of the original's with the same outputs.
        kernels: by the name of a layer with a kernel, the original's layer.
        factors: float64 [channels], by the name of a layer with a kernel, what each channel of the
            original's kernel was multiplied by.
        quantizers: by the name of a layer, the original's quantizer behind its outputs.
        floats: names of layers that are left in float.
    """

    model: keras.Model
    origins: dict[str, str]
    kernels: dict[str, Any]
    factors: dict[str, np.ndarray]
    quantizers: dict[str, ActivationQuantizer]
    floats: set[str]


def folded(model: keras.Model, policy: Policy = INT8) -> Folded:
    """Returns a plain model in which constants of channels are part of the kernel before them.

        kernel' = kernel * factor    bias' = bias * factor + shift

    So a batch norm that alone reads a convolution or dense layer is part of that layer, which keeps
    its name: factor = gamma / sqrt(variance + epsilon), shift = beta - mean * factor. Other
    constants, such as those of a normalization of images, become a depthwise convolution of one
    pixel, or nothing where together they leave values as they are.

    Args:
        model: a functional or sequential model with one input, quantizable or not.
        policy: what it leaves in float by name is not taken apart.

    Raises:
        UserError: on a model that is neither or has several inputs.
    """
    flat = Flattening(functional(model), policy)
    found = {layer.name: layer for layer in flat.model.layers}
    nodes = read_graph(flat.model.get_config())
    returned = set(output_names(flat.model))
    into: dict[str, str] = {}
    constants: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in nodes:
        layer = found.get(name)
        if not isinstance(layer, ChannelAffine):
            continue
        factor, shift = (np.asarray(v, np.float64) for v in (layer.factor, layer.shift))
        (producer,) = nodes[name].producers
        alone = nodes[producer].consumers == [name] and producer not in returned
        root = into.get(producer, producer)
        if alone and (_has_kernel(found.get(root)) or root in constants):
            before = constants.get(root, (np.ones_like(factor), np.zeros_like(shift)))
            constants[root] = before[0] * factor, before[1] * factor + shift
            into[name] = root
            flat.origins[root] = flat.origins.get(name, name)
            # One before the constants was of other values.
            flat.quantizers.pop(root, None)
            if name in flat.quantizers:
                flat.quantizers[root] = flat.quantizers[name]
        else:
            constants[name] = factor, shift
    idle = {n for n, c in constants.items() if n not in into and _is_identity(found[n], c)}
    plain = _built(flat, nodes, constants, {*into, *idle})
    factors = {name: values[0] for name, values in constants.items() if name in flat.kernels}
    return Folded(plain, flat.origins, flat.kernels, factors, flat.quantizers, flat.floats)


def _has_kernel(layer: Any) -> bool:
    return type(layer) in QUANTIZED_COUNTERPARTS and layer.activation is keras.activations.linear


def _is_identity(layer: Any, constants: tuple[np.ndarray, np.ndarray]) -> bool:
    factor, shift = constants
    return isinstance(layer, ChannelAffine) and bool(
        np.allclose(factor, 1, atol=1e-6) and np.allclose(shift, 0, atol=1e-6)
    )


def _built(
    flat: Flattening,
    nodes: dict[str, Node],
    constants: dict[str, tuple[np.ndarray, np.ndarray]],
    dropped: set[str],
) -> keras.Model:
    def clone_layer(layer: Any) -> Any:
        if isinstance(layer, ChannelAffine) and layer.name not in dropped:
            return layers.DepthwiseConv2D(1, dtype="float32", name=layer.name)
        if layer.name in constants and not isinstance(layer, ChannelAffine):
            return same_layer(layer, {**layer.get_config(), "use_bias": True})
        return same_layer(layer)

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in dropped:
            return args[0]
        added = isinstance(layer, layers.DepthwiseConv2D) and layer.name in constants
        if added and len(args[0].shape) != 4:
            x = args[0]
            pixels = layers.Reshape(
                (-1, 1, x.shape[-1]), name=f"{layer.name}_pixels", dtype="float32"
            )(x)
            return layers.Reshape(x.shape[1:], name=f"{layer.name}_values", dtype="float32")(
                layer(pixels)
            )
        return layer(*args, **kwargs)

    plain = cloned(flat.model, clone_layer, call_layer)
    originals = {layer.name: layer for layer in flat.model.layers}
    for layer in plain.layers:
        if layer.weights:
            give_weights(layer, _weights(originals[layer.name], constants.get(layer.name)))
    return plain


def _weights(layer: Any, constants: tuple[np.ndarray, np.ndarray] | None) -> list[np.ndarray]:
    """Returns the weights of the plain layer, folded in float64."""
    if constants is None:
        return layer.get_weights()
    factor, shift = constants
    if isinstance(layer, ChannelAffine):
        return [factor.reshape(1, 1, -1, 1), shift]
    kernel = np.asarray(layer.kernel, np.float64)
    bias = 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    # Output channels of a depthwise kernel are its last two axes: input channel, then multiplier.
    shape = kernel.shape[2:] if depthwise else (-1,)
    return [kernel * factor.reshape(shape), bias * factor + shift]
