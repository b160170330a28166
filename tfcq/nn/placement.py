"""Where a policy puts quantizers in the graph of a functional model. Needs no TensorFlow.

A tensor is *materialized* when something other than the batch norm or activation function fused
into its producer reads it. Quantizers go on materialized tensors only, as integer runtimes do.
"""

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

from tfcq.settings.policies import DRAWN, FLOAT, LayerBits, Policy, parse_layer_bits

KERNEL_CLASSES = {"Conv2D", "DepthwiseConv2D", "Dense"}
_NORMALIZATIONS = {"BatchNormalization"}
_ACTIVATIONS = {
    "ReLU", "Relu", "Relu6", "LeakyReLU", "LeakyRelu", "PReLU", "ELU", "Elu", "Activation", "Gelu",
    "Silu", "Swish", "HardSwish", "HardSilu", "Sigmoid", "HardSigmoid", "Tanh", "Softmax",
}  # fmt: skip
# Token embeddings are the sum of patches and their positions.
_SUMS = {"Add", "Subtract", "Average", "TokenEmbedding"}
# With one producer these scale by a constant.
_SCALINGS = {"Multiply", "Divide", "TrueDivide", "Rescaling"}
# Each output value is one of the input's values (or zero), so the grid is kept.
_VALUE_PRESERVING = {
    "InputLayer", "Flatten", "Reshape", "Permute", "RepeatVector", "MaxPooling2D",
    "GlobalMaxPooling2D", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "Dropout",
    "SpatialDropout2D", "UpSampling2D", "Identity", "Squeeze", "ExpandDims", "Transpose",
    "Swapaxes", "Moveaxis", "GetItem", "Slices", "Split", "Unstack",
}  # fmt: skip
_NEVER_NEGATIVE = {
    "Relu", "Relu6", "Sigmoid", "HardSigmoid", "Softmax", "AttentionProbabilities",
}  # fmt: skip
# A tuple, since a configuration may hold a dictionary here, which no set can look up.
_NEVER_NEGATIVE_FUNCTIONS = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softmax")


@dataclasses.dataclass
class Node:
    """One layer or operation of a functional model, with the names of what it reads and feeds."""

    name: str
    kind: str
    config: dict[str, Any]
    producers: list[str] = dataclasses.field(default_factory=list)
    consumers: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a policy asks of one model.

    Args:
        kernels: bits of each layer's kernel, by layer name; layers left in float are absent.
        outputs: bits of the quantizer behind each layer, by layer name.
        signed: those of `outputs` that can be negative.
        first: layers with a kernel, and nested models, that no other kernel precedes.
    """

    kernels: dict[str, int | str]
    outputs: dict[str, int | str]
    signed: frozenset[str]
    first: frozenset[str]


def _tensor_sources(value: Any) -> list[str]:
    """Returns the names of the layers whose tensors a serialized call argument holds."""
    if isinstance(value, dict):
        if "keras_history" in value:
            return [value["keras_history"][0]]
        return [name for item in value.values() for name in _tensor_sources(item)]
    if isinstance(value, (list, tuple)):
        return [name for item in value for name in _tensor_sources(item)]
    return []


def read_graph(config: dict[str, Any]) -> dict[str, Node]:
    """Returns the nodes of a functional model by name, in the order of its layers.

    Args:
        config: the model's `get_config()`.
    """
    nodes = {
        layer["name"]: Node(layer["name"], layer["class_name"], layer["config"])
        for layer in config["layers"]
    }
    for layer in config["layers"]:
        for source in _tensor_sources(layer["inbound_nodes"]):
            nodes[layer["name"]].producers.append(source)
            nodes[source].consumers.append(layer["name"])
    return nodes


def fuses_into_kernel(kind: str) -> bool:
    """Whether runtimes may compute a layer of that class together with the kernel before it."""
    return kind in _ACTIVATIONS or kind.endswith("Normalization")


def keeps_values(kind: str) -> bool:
    """Whether each output of a layer of that class is one of its input's values, or zero."""
    return kind in _VALUE_PRESERVING


def _fuses(node: Node, reader: Node) -> bool:
    """Whether runtimes compute the reader together with the node. Nothing follows an activation."""
    return reader.kind in _NORMALIZATIONS | _ACTIVATIONS and not _has_activation(node)


def _fused_chain(nodes: dict[str, Node], name: str) -> list[str]:
    """Returns a node and what is fused into it upstream, up to the layer with the kernel."""
    chain = [name]
    node = nodes[name]
    while node.kind in _NORMALIZATIONS | _ACTIVATIONS and len(node.producers) == 1:
        upstream = nodes[node.producers[0]]
        if len(upstream.consumers) != 1 or not _fuses(upstream, node):
            break
        node = upstream
        chain.append(node.name)
        if node.kind in KERNEL_CLASSES:
            break
    return chain


def _has_activation(node: Node) -> bool:
    """Whether the node applies an activation function, its own or one fused into a kernel."""
    if node.kind in KERNEL_CLASSES or node.kind == "Activation":
        activation = node.config.get("activation", "linear")
        return (activation or "linear") != "linear"
    return node.kind in _ACTIVATIONS


def _can_be_negative(nodes: dict[str, Node], node: Node) -> bool:
    """Whether the output is not known to be at least zero, from a ReLU or its like."""
    if node.kind == "ReLU":
        return bool(node.config["negative_slope"])
    if node.kind in KERNEL_CLASSES or node.kind == "Activation":
        function = node.config.get("activation") or "linear"
        if function != "linear" or node.kind in KERNEL_CLASSES:
            return function not in _NEVER_NEGATIVE_FUNCTIONS
    elif node.kind not in _VALUE_PRESERVING:
        return node.kind not in _NEVER_NEGATIVE
    # The output holds the input's values.
    producers = [nodes[name] for name in node.producers]
    return not producers or any(_can_be_negative(nodes, producer) for producer in producers)


def _wants_quantizer(nodes: dict[str, Node], node: Node, policy: Policy) -> bool:
    if node.kind in _VALUE_PRESERVING:
        return False
    readers = [nodes[name] for name in node.consumers]
    if len(readers) == 1 and _fuses(node, readers[0]):
        return False
    chain = _fused_chain(nodes, node.name)
    root = nodes[chain[-1]]
    if not readers:
        # Features leave the model on their grid; logits, probabilities and pooled features leave
        # it as they are.
        return root.kind not in {"Dense"} and _has_activation(node) and node.kind != "Softmax"
    if _has_activation(node) or node.kind in _SUMS:
        return True
    if root.kind in KERNEL_CLASSES and all(reader.kind in _SUMS for reader in readers):
        return policy.quantize_before_add
    return _feeds_arithmetic(nodes, node) and not _are_scores(nodes, node)


def _are_scores(nodes: dict[str, Node], node: Node) -> bool:
    """Whether a softmax alone, which is computed in float, reads the tensor or a scaled copy."""
    if len(node.consumers) != 1:
        return False
    reader = nodes[node.consumers[0]]
    scaled = reader.kind in _SCALINGS and len(reader.producers) == 1
    return reader.kind == "Softmax" or (scaled and _are_scores(nodes, reader))


def _feeds_arithmetic(nodes: dict[str, Node], node: Node) -> bool:
    """Whether a kernel or an element-wise operation reads the tensor, values kept in between."""
    for name in node.consumers:
        reader = nodes[name]
        if reader.kind in _VALUE_PRESERVING or reader.kind == "Concatenate":
            if _feeds_arithmetic(nodes, reader):
                return True
        else:
            return True
    return False


def _computes(node: Node) -> bool:
    """Whether the node holds kernels: a layer with one, or a nested model."""
    return node.kind in KERNEL_CLASSES or "layers" in node.config


def _behind(nodes: dict[str, Node], computing: set[str]) -> set[str]:
    """Returns the nodes that read, directly or not, what those that compute produced."""
    behind: set[str] = set()
    pending = [consumer for name in computing for consumer in nodes[name].consumers]
    while pending:
        name = pending.pop()
        if name not in behind:
            behind.add(name)
            pending.extend(nodes[name].consumers)
    return behind


def place(
    nodes: dict[str, Node],
    policy: Policy,
    reads_images: bool = True,
    kernels_inside: Collection[str] = (),
    known_as: Mapping[str, str] | None = None,
) -> Placement:
    """Returns which kernels and outputs a policy quantizes, and at which bits.

    Args:
        nodes: the graph, from `read_graph`.
        policy: the policy.
        reads_images: whether this graph reads the images, which stay as they are until the first
            kernel; False for a nested model behind other kernels.
        kernels_inside: names of layers of other classes that hold a kernel, which stays in float.
            The first layer is the one that reads the images, quantized or not.
        known_as: by the name of a layer, that by which overrides know it, where it is another.

    Raises:
        UserError: when an override has unknown bits.
    """
    computing = {node.name for node in nodes.values() if _computes(node)} | set(kernels_inside)
    behind = _behind(nodes, computing)
    first = frozenset(computing - behind) if reads_images else frozenset()
    reached = behind | computing if reads_images else set(nodes)

    known = known_as or {}

    def bits_of(chain: list[str]) -> LayerBits:
        for pattern, bits in policy.overrides:
            if any(fnmatch.fnmatchcase(known.get(name, name), pattern) for name in chain):
                return parse_layer_bits(bits)
        return policy.first if policy.first and first & set(chain) else policy.default

    kernels = {
        n.name: bits_of([n.name]).weights for n in nodes.values() if n.kind in KERNEL_CLASSES
    }
    outputs = {
        name: bits_of(_fused_chain(nodes, name)).activations
        for name in nodes
        if name in reached and _wants_quantizer(nodes, nodes[name], policy)
    }
    kernels, outputs = (
        {name: bits for name, bits in asked.items() if bits != FLOAT}
        for asked in (kernels, outputs)
    )
    signed = frozenset(name for name in outputs if _can_be_negative(nodes, nodes[name]))
    return Placement(kernels, outputs, signed, first)


def fixed_bits(bits: int | str) -> int | None:
    """Returns the bits as quantizers take them: `None` where the pass decides."""
    return None if bits == DRAWN else int(bits)
