"""A quantizable model cut into parts that can be run one after the other.

All paths from images to outputs pass through a part's ends, so that what a part computes follows
from its input alone. Parts of nested models stand among those of the model around them.
"""

import dataclasses
import graphlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.placement import Node, fuses_into_kernel, read_graph
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision


@dataclasses.dataclass(frozen=True)
class Graph:
    """The nodes of one functional model, without those of models inside it.

    Args:
        nodes: the nodes by name.
        operations: the layers and operations by name.
    """

    nodes: dict[str, Node]
    operations: dict[str, Any]

    @classmethod
    def of(cls, model: keras.Model) -> "Graph":
        """Returns the graph of a functional model.

        Args:
            model: the model.
        """
        nodes = read_graph(model.get_config())
        operations = {operation.name: operation for operation in model.operations}
        return cls(nodes, operations)

    def fused_into(self, name: str) -> list[str]:
        """Returns a node and the batch norm and activation that alone read it, in order.

        Args:
            name: a node with a kernel.
        """
        chain = [name]
        while len(self.nodes[chain[-1]].consumers) == 1:
            reader = self.nodes[self.nodes[chain[-1]].consumers[0]]
            if not fuses_into_kernel(reader.kind) or len(reader.producers) != 1:
                break
            chain.append(reader.name)
        return chain

    def norm_behind(self, name: str) -> keras.layers.BatchNormalization | None:
        """Returns the batch norm that alone reads a layer's linear output, None without one.

        Args:
            name: a node with a kernel.
        """
        if self.operations[name].activation is not keras.activations.linear:
            return None
        chain = self.fused_into(name)
        reader = self.operations[chain[1]] if len(chain) > 1 else None
        return reader if isinstance(reader, keras.layers.BatchNormalization) else None


@dataclasses.dataclass(frozen=True)
class Part:
    """A sub-graph between two tensors through which all paths pass.

    Args:
        graph: the graph that it belongs to.
        names: its nodes, each behind those that it reads.
    """

    graph: Graph
    names: tuple[str, ...]

    @property
    def operations(self) -> list[Any]:
        """Its layers and operations, each behind those that it reads."""
        return [self.graph.operations[name] for name in self.names]

    @property
    def kernels(self) -> list[keras.layers.Layer]:
        """Its layers with a quantized kernel, in that order."""
        return [layer for layer in self.operations if hasattr(layer, "weight_quantizer")]

    @property
    def inputs(self) -> keras.KerasTensor:
        """The tensor that it reads."""
        # Nothing else is there for the first node to read. (The output of what came before it may
        # be a nested model, whose `output` is a tensor inside it.)
        return keras.tree.flatten(self.operations[0].input)[0]

    @property
    def outputs(self) -> keras.KerasTensor:
        """The tensor that it computes."""
        return self.operations[-1].output

    def until(self, tensor: keras.KerasTensor | None = None) -> QuantizableModel | None:
        """Returns the model from the part's input to a tensor in it.

        Args:
            tensor: a tensor of the part; None for its output.

        Returns:
            The model, which shares the layers; None where the tensor is the input itself.
        """
        tensor = self.outputs if tensor is None else tensor
        return None if tensor is self.inputs else QuantizableModel(self.inputs, tensor)


def kernel_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers whose kernels are quantized, those of nested models included.

    Args:
        model: a quantizable model.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from kernel_layers(layer)
        elif hasattr(layer, "weight_quantizer"):
            yield layer


def parts_of(model: keras.Model) -> list[Part]:
    """Returns the parts of a model in the order of computation.

    A part is as small as it can be with a quantized kernel in it; layers without kernels belong to
    the part before them. A residual block is one part.

    Args:
        model: a quantizable model with one input and one output.

    Raises:
        UserError: on several inputs or outputs, a layer that is called twice, or a nested model
            that only some paths pass through.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"Model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} "
            "outputs; allowed: one each."
        )
    graph = Graph.of(model)
    _check_called_once(model)
    found: list[Part] = []
    current: list[str] = []

    def finish() -> None:
        if current:
            found.append(Part(graph, tuple(current)))
            current.clear()

    def has_kernel(names: list[str]) -> bool:
        return any(hasattr(graph.operations[name], "weight_quantizer") for name in names)

    for segment in _segments(graph.nodes):
        inner = [n for n in segment if isinstance(graph.operations[n], keras.Model)]
        if len(segment) > 1 and inner:
            raise UserError(
                f"Model {model.name!r} holds the model {inner[0]!r} beside another path; allowed: "
                "a nested model that all paths pass through. Call its layers instead."
            )
        if inner or (has_kernel(segment) and has_kernel(current)):
            finish()
        if inner:
            found += parts_of(graph.operations[inner[0]])
        else:
            current += segment
    finish()
    return found


def _check_called_once(model: keras.Model) -> None:
    for layer in model.get_config()["layers"]:
        if len(layer["inbound_nodes"]) > 1:
            raise UserError(
                f"Layer {layer['name']!r} of model {model.name!r} is called "
                f"{len(layer['inbound_nodes'])} times; allowed: once."
            )


def _segments(nodes: dict[str, Node]) -> Iterator[list[str]]:
    """Yields the nodes between one tensor through which all paths pass and the next."""
    sorter = graphlib.TopologicalSorter({name: node.producers for name, node in nodes.items()})
    source, *order = sorter.static_order()
    position = {name: index for index, name in enumerate([source, *order])}
    # How far what was computed so far is still read.
    furthest = max(position[reader] for reader in nodes[source].consumers)
    segment = []
    for name in order:
        segment.append(name)
        if furthest <= position[name]:
            yield segment
            segment = []
        furthest = max([furthest, *(position[reader] for reader in nodes[name].consumers)])


def run(
    model: QuantizableModel | None,
    inputs: np.ndarray,
    precision: Precision | None,
    batch_size: int,
) -> np.ndarray:
    """Returns what a model computes from many inputs; the inputs where the model is None.

    Args:
        model: the model, or None.
        inputs: float array [count, ...].
        precision: the pass.
        batch_size: inputs per pass.
    """
    if model is None:
        return inputs
    starts = range(0, len(inputs), batch_size)
    # Eager: a handful of passes each, which a trace would not pay for.
    batches = (tf.convert_to_tensor(inputs[s : s + batch_size]) for s in starts)
    passes = [model(batch, precision=precision, training=False).numpy() for batch in batches]
    return np.concatenate(passes)


def paired_parts(model: keras.Model, reference: keras.Model) -> list[tuple[Part, Part]]:
    """Returns the parts of a model, each with the same part of the model that it should resemble.

    Args:
        model: a quantizable model.
        reference: a quantizable model with the same layers.

    Raises:
        UserError: when their kernels differ in name or shape, and as `parts_of` does.
    """
    pairs = list(zip(parts_of(model), parts_of(reference), strict=False))
    ours, theirs = (
        [(layer.name, tuple(layer.kernel.shape)) for layer in kernel_layers(m)]
        for m in (model, reference)
    )
    if ours != theirs:
        different = next(a for a in [*ours, ("nothing",)] if a not in theirs)
        raise UserError(
            f"Models {model.name!r} and {reference.name!r} differ at layer {different[0]!r}; "
            "allowed: the model that the first was made from."
        )
    return pairs
