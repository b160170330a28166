"""Layers of a quantizable model that need the grid of another one's values."""

import functools
from typing import Any

import keras
import tensorflow as tf

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.placement import keeps_values, read_graph
from tfcq.quantization.precision import Precision


def link_grids(model: keras.Model) -> None:
    """Tells layers with integer biases, and quantizers that follow others, whose grid they need.

    Args:
        model: a functional model.
    """
    layers = {layer.name: layer for layer in model.layers}
    integer = [
        layer
        for layer in layers.values()
        if getattr(layer, "integer_bias", hasattr(layer, "input_scale"))
    ]
    for layer in layers.values():
        if isinstance(layer, ActivationQuantizer) and layer.follows:
            # Behind a function, or Keras would take it for a layer inside the layer.
            layer.leader = functools.partial(layers.get, layer.follows)
    if not integer:
        return
    nodes = read_graph(model.get_config())
    for layer in integer:
        (name,) = nodes[layer.name].producers
        while keeps_values(nodes[name].kind) and nodes[name].producers:
            (name,) = nodes[name].producers
        if isinstance(layers.get(name), ActivationQuantizer):
            layer.input_scale = functools.partial(_scale, functools.partial(layers.get, name))


def _scale(quantizer: Any, precision: Precision) -> tf.Tensor:
    return quantizer().parameters(precision)[0]
