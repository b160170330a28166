"""What a quantizable model quantizes, layer by layer, at which bits, and why the rest is float."""

import dataclasses
from typing import Any

import keras

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import check_quantizable
from tfcq.nn.placement import Node, fuses_into_kernel, keeps_values, read_graph
from tfcq.nn.quantizable import holds_kernel

_COLUMNS = ("layer", "kind", "weights", "activations", "why")


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """How one layer or operation is quantized.

    Args:
        layer: its name, behind those of the models around it and slashes.
        kind: its class.
        weights: `"8 bits"`, `"of the pass"`, `"float"`, or `"-"` where it holds no kernel.
        activations: the same of its output.
        why: why something is in float; empty where nothing is.
    """

    layer: str
    kind: str
    weights: str
    activations: str
    why: str


def layer_summaries(model: keras.Model) -> list[LayerSummary]:
    """Returns how each layer is quantized, in the order of computation.

    Args:
        model: a quantizable model; nested ones are listed layer by layer.

    Raises:
        UserError: when the model is a float one or has several inputs.
    """
    check_quantizable(model)
    return _summaries(model, "")


def summary(model: keras.Model) -> str:
    """Returns a table of all layers: bits of weights and activations, and why the rest is float.

    Args:
        model: a quantizable model.

    Raises:
        UserError: when the model is a float one or has several inputs.

    Example:

        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="logits")])
        >>> print(tfcq.summary(tfcq.quantizable(network, "uniform")))
        layer   kind   weights      activations  why
        logits  Dense  of the pass  float        output of the model
    """
    rows = [_COLUMNS, *(dataclasses.astuple(one) for one in layer_summaries(model))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _summaries(model: keras.Model, prefix: str) -> list[LayerSummary]:
    nodes = read_graph(model.get_config())
    operations = {operation.name: operation for operation in model.operations}
    found = []
    for name, node in nodes.items():
        operation = operations[name]
        if isinstance(operation, keras.Model):
            found += _summaries(operation, f"{prefix}{name}/")
        elif not isinstance(operation, (ActivationQuantizer, keras.layers.InputLayer)):
            found.append(_summary(prefix, node, nodes, operations))
    return found


def _summary(
    prefix: str, node: Node, nodes: dict[str, Node], operations: dict[str, Any]
) -> LayerSummary:
    operation = operations[node.name]
    weights, why = "-", []
    if hasattr(operation, "weight_quantizer"):
        weights = _bits(operation.weight_quantizer)
    elif holds_kernel(operation):
        weights = "float"
        why.append("its kernel is left in float")
    readers = [operations[name] for name in node.consumers]
    quantizers = [one for one in readers if isinstance(one, ActivationQuantizer)]
    if quantizers:
        activations = _bits(quantizers[0].quantizer)
    else:
        activations = "float"
        why.append(_why_float(node, nodes))
    kind = type(operation).__name__.removeprefix("Quantized")
    return LayerSummary(f"{prefix}{node.name}", kind, weights, activations, "; ".join(why))


def _bits(quantizer: Any) -> str:
    return "of the pass" if quantizer.bits is None else f"{quantizer.bits} bits"


def _why_float(node: Node, nodes: dict[str, Node]) -> str:
    readers = [nodes[name] for name in node.consumers]
    if not readers:
        return "output of the model"
    if len(readers) == 1 and fuses_into_kernel(readers[0].kind):
        return f"computed together with {readers[0].name!r}"
    if keeps_values(node.kind):
        return "keeps the values that it reads"
    if not any("Quantized" in nodes[name].kind for name in _before(node, nodes)):
        return "made of the images, which no kernel has read"
    return "left in float by the policy"


def _before(node: Node, nodes: dict[str, Node]) -> set[str]:
    """Returns the node and all that it reads, directly or not."""
    seen: set[str] = set()
    pending = [node.name]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += nodes[name].producers
    return seen
