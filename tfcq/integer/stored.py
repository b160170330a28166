"""Which tensors of a flat model an integer runtime stores, and on which grids."""

from tfcq.integer.operations import (
    FIXED_RANGES,
    FLOAT_LAYER,
    fuses_relu,
    keeps_grid,
    takes_grid_of_input,
)
from tfcq.nn.placement import Node
from tfcq.quantization.integer import IntegerActivationQuantizer

_BITS = 8
# Between the greatest and the least inverse of a norm's deviations.
_LARGEST_RATIO = 64.0


def stored_quantizer(
    nodes: dict[str, Node], name: str, outputs: set[str]
) -> IntegerActivationQuantizer:
    """Returns the quantizer of a tensor that is stored.

    Args:
        nodes: the graph of a flat model.
        name: the layer that makes the tensor.
        outputs: names of the layers whose tensors leave the model.
    """
    node = nodes[name]
    function = node.config["activation"] if node.kind == "Activation" else ""
    fixed = FIXED_RANGES.get(str(function))
    if fixed is not None:
        return IntegerActivationQuantizer(_BITS, *fixed)
    if _ends_at_one(node):
        return IntegerActivationQuantizer(_BITS, 0.0, 1.0)
    if node.kind == "Rsqrt":
        # Vectors without any variance, which no scale makes more of, leave levels to the others. A
        # class token has less than a step of the greatest energy, and yet needs its scale.
        return IntegerActivationQuantizer(_BITS, ratio=_LARGEST_RATIO)
    # What leaves the network, and what is pooled, does not cost what a stored map costs.
    small = name in outputs or node.kind.startswith("Global")
    return IntegerActivationQuantizer(_BITS if small else None, centred=_is_factor(nodes, name))


def _is_factor(nodes: dict[str, Node], name: str) -> bool:
    """Whether a layer's values are the second factor of a product of matrices.

    Fast kernels take that one as they take weights: without a zero point.
    """
    return any(
        nodes[reader].producers[1] == name
        if nodes[reader].kind == "MatrixProduct"
        else keeps_grid(nodes[reader].kind) and _is_factor(nodes, reader)
        for reader in nodes[name].consumers
    )


def is_stored(nodes: dict[str, Node], name: str, outputs: set[str]) -> bool:
    """Whether a runtime keeps a layer's outputs on a grid of their own.

    Args:
        nodes: the graph of a flat model.
        name: the layer.
        outputs: names of the layers whose tensors leave the model.
    """
    node = nodes[name]
    if keeps_grid(node.kind) or node.kind == "InputLayer":
        return False
    if node.kind == FLOAT_LAYER:
        return any(nodes[reader].kind != FLOAT_LAYER for reader in node.consumers)
    if name in outputs:
        return True
    readers = [nodes[reader] for reader in node.consumers]
    if len(readers) != 1:
        return True
    (reader,) = readers
    fused = reader.kind == "ReLU" and fuses_relu(node.kind)
    joined = reader.kind == "Concatenate" and not takes_grid_of_input(node.kind)
    # What fuses with a ReLU that ends at 1 is clipped at -1.
    own = node.kind == "Activation" or _ends_at_one(node)
    return not (fused or (joined and not own))


def _ends_at_one(node: Node) -> bool:
    return node.kind == "ReLU" and node.config["max_value"] == 1


def holder_of_grid(nodes: dict[str, Node], name: str) -> str:
    """Returns the layer whose grid a layer's outputs are on.

    Args:
        nodes: the graph of a flat model.
        name: the layer.
    """
    while keeps_grid(nodes[name].kind):
        (name,) = nodes[name].producers
    return name
