"""Floating-point operations of a forward pass: a multiplication and an addition each."""

import math
from typing import Any

import keras

from tfcq.nn.attention import AttendedValues, AttentionProbabilities
from tfcq.nn.layer_bits import leaves_of
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS


def product_layers(network: keras.Model) -> list[Any]:
    """Returns the layers that multiply by a kernel, those of nested models too.

    Args:
        network: a model, quantizable or not.
    """
    return [one for one in leaves_of(network) if isinstance(one, tuple(QUANTIZED_COUNTERPARTS))]


def flops_of_kernel(layer: Any, outputs: tuple[int, ...]) -> int:
    """Returns the operations of a convolution or dense layer.

        2 * outputs * values of the kernel that one output channel spans

    Args:
        layer: the layer.
        outputs: shape of its outputs.
    """
    kinds = QUANTIZED_COUNTERPARTS.items()
    axes = next(own.kernel_axes for plain, own in kinds if isinstance(layer, plain))
    return 2 * math.prod(outputs) * math.prod(layer.kernel.shape[axis] for axis in axes)


def forward_flops(network: keras.Model) -> int:
    """Returns the operations of a pass of one image: of convolutions, dense layers and attention.

    What is done value by value, such as batch norm, is left out, as in the figures that networks
    are published with (He et al., 2016, Table 1, there in multiply-adds, half of these).

    Args:
        network: a functional or sequential model whose inputs have one size.
    """
    config = network.get_config()
    # How often a shared layer is called; those of a sequential model are called once.
    calls = {
        layer["config"]["name"]: len(layer.get("inbound_nodes", "1")) for layer in config["layers"]
    }
    return sum(calls.get(layer.name, 1) * _flops(layer) for layer in network.layers)


def _flops(layer: Any) -> int:
    if isinstance(layer, keras.Model):
        return forward_flops(layer)
    outputs: Any = layer.output
    if isinstance(layer, tuple(QUANTIZED_COUNTERPARTS)):
        return flops_of_kernel(layer, outputs.shape[1:])
    if isinstance(layer, AttentionProbabilities):
        queries, _ = layer.input
        return 2 * math.prod(outputs.shape[1:]) * queries.shape[-1] // layer.heads
    if isinstance(layer, AttendedValues):
        probabilities, _ = layer.input
        return 2 * math.prod(outputs.shape[1:]) * probabilities.shape[-1]
    return 0


def uncounted(network: keras.Model) -> list[str]:
    """Returns the names of layers with matrices of their own of which no operation is counted.

    Args:
        network: a model.
    """
    return [
        layer.name
        for layer in leaves_of(network)
        if not isinstance(layer, tuple(QUANTIZED_COUNTERPARTS))
        and any(len(weight.shape) > 1 for weight in layer.trainable_weights)
    ]
