"""A quantizable classifier as others can rebuild it: nodes as data, folded weights as arrays."""

from typing import Any

import keras
import numpy as np

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.float_model import float_model
from tfcq.nn.placement import Node, read_graph
from tfcq.nn.quantizable import QuantizableModel

KINDS = {"Conv2D": "conv", "DepthwiseConv2D": "conv", "Dense": "dense", "ReLU": "relu",
         "Add": "add", "GlobalAveragePooling2D": "mean"}  # fmt: skip
KERNELS = ("Conv2D", "DepthwiseConv2D", "Dense")
OF_PASS = "of the pass"


def described(model: QuantizableModel) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns the nodes of a classifier in their order, and its weights with norms folded in.

    A node has a `name`, a `kind`, the names of its `inputs` (`"images"` for the images), and bits
    as `weights` and `activations`: a number, `OF_PASS`, or None for float. A convolution has
    `stride`, `padding` and `groups` too, a ReLU its `largest` value or None. Arrays are
    `NAME/kernel` (as PyTorch has them) and `NAME/bias`.

    Args:
        model: the classifier.

    Raises:
        UserError: on a layer of another kind, or a convolution that PyTorch would pad otherwise.
    """
    plain = float_model(model)
    same, pads, arrays, nodes = {}, {}, {}, []
    weights, activations = _bits(model)
    for name, node in read_graph(plain.get_config()).items():
        layer = plain.get_layer(name)
        inputs = [same[source] for source in node.producers]
        same[name] = name
        if node.kind == "InputLayer":
            same[name] = "images"
        elif node.kind == "ZeroPadding2D":
            (pads[name], _), same[name] = layer.padding[0], inputs[0]
        elif node.kind == "BatchNormalization":
            _fold(layer, inputs[0], arrays)
            same[name] = inputs[0]
        elif node.kind in KINDS:
            one = {"name": name, "kind": KINDS[node.kind], "inputs": inputs}
            depthwise = node.kind == "DepthwiseConv2D"
            if depthwise and layer.depth_multiplier > 1:
                raise UserError(f"Layer {name!r} has {layer.depth_multiplier} kernels a channel; "
                                "allowed for the peers' copy: 1.")  # fmt: skip
            if node.kind in KERNELS:
                kernel, *bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
                # Outputs first: those of a depthwise convolution are its inputs.
                outputs_first = (-2, -1) if depthwise else (-1, -2)
                arrays[f"{name}/kernel"] = kernel = np.moveaxis(kernel, outputs_first, (0, 1))
                arrays[f"{name}/bias"] = bias[0] if bias else np.zeros(len(kernel))
            if KINDS[node.kind] == "conv":
                one |= _geometry(node, layer, pads)
            elif node.kind == "ReLU":
                one["largest"] = layer.max_value
            nodes.append(one)
        else:
            raise _unknown(node)
    for one in nodes:
        one["weights"] = weights.get(one["name"])
    for name, bits in activations.items():
        next(one for one in nodes if one["name"] == same[name])["activations"] = bits
    return nodes, {name: array.astype(np.float32) for name, array in arrays.items()}


def _bits(model: QuantizableModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns bits of kernels, and of outputs by the name of the layer that makes them."""
    nodes = read_graph(model.get_config())
    weights, activations = {}, {}
    for layer in model.layers:
        if isinstance(layer, ActivationQuantizer):
            activations[nodes[layer.name].producers[0]] = layer.quantizer.bits or OF_PASS
        elif getattr(layer, "weight_quantizer", None) is not None:
            weights[layer.name] = layer.weight_quantizer.bits or OF_PASS
    return weights, activations


def _geometry(node: Node, layer: keras.layers.Layer, pads: dict[str, int]) -> dict[str, int]:
    (size, _), (stride, _) = layer.kernel_size, layer.strides
    padding = pads.get(node.producers[0], 0)
    if layer.padding == "same":
        padding += size // 2
        if stride > 1 and size > 1:
            raise UserError(f"Layer {node.name!r} pads to one side; PyTorch's pad to both.")
    groups = layer.input.shape[-1] if node.kind == "DepthwiseConv2D" else 1
    return {"stride": stride, "padding": padding, "groups": groups}


def _fold(norm: keras.layers.BatchNormalization, name: str, arrays: dict[str, np.ndarray]) -> None:
    if f"{name}/kernel" not in arrays:
        raise UserError(f"Layer {norm.name!r} follows no convolution that it could be folded into.")
    gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    kernel = arrays[f"{name}/kernel"]
    arrays[f"{name}/kernel"] = kernel * factor.reshape(-1, *(1,) * (kernel.ndim - 1))
    arrays[f"{name}/bias"] = beta + (arrays[f"{name}/bias"] - mean) * factor


def _unknown(node: Node) -> UserError:
    return UserError(
        f"Layer {node.name!r} is of class {node.kind}, which the peers' copy does not know; "
        f"allowed: {', '.join(KINDS)}, ZeroPadding2D and BatchNormalization."
    )
