"""Layers that stay in float between integers: what TensorFlow's converter makes of each alone."""

import dataclasses
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.integer.conversion import float_file
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.writer import Writer


def write_float(writer: Writer, layer: Any, inputs: list[int]) -> int:
    """Writes the operations of a float layer, and what makes floats of its inputs.

    Args:
        writer: the file under way.
        layer: the layer.
        inputs: indices of the tensors that it reads.

    Returns:
        The index of its output.
    """
    producers = dict.fromkeys(writer.nodes[layer.name].producers)
    sources = [writer.layers[name].output for name in producers]
    alone = keras.Model(sources, layer.output)
    kinds = [((writer.batch, *source.shape[1:]), source.dtype) for source in sources]
    content = float_file(
        lambda *tensors: alone(list(tensors), training=False),
        kinds,
        alone.variables,
        f"Layer {layer.name!r}",
    )
    taken = [writer.in_float(index) for index in dict.fromkeys(inputs)]
    try:
        file = LiteFile.read(content, f"What TensorFlow makes of layer {layer.name!r}")
    except UserError as error:
        if "graphs" not in str(error):
            raise
        unrolled = ", such as with unroll=True" if hasattr(layer, "unroll") else ""
        raise UserError(
            f"Layer {layer.name!r} ({type(layer).__name__}) computes in a loop or a branch, which "
            f"no file of integers holds; allowed: a layer without{unrolled}."
        ) from None
    return _spliced(writer, file, taken, layer.name)


def _spliced(writer: Writer, file: LiteFile, taken: list[int], name: str) -> int:
    """Adds the tensors and operations of a file, which reads tensors of this one."""
    # A file names its inputs by their number.
    order = sorted(file.inputs, key=lambda index: file.tensors[index].name)
    places = dict(zip(order, taken, strict=True)) | {-1: -1}
    for index, tensor in enumerate(file.tensors):
        if index not in places:
            places[index] = len(writer.file.tensors)
            part = dataclasses.replace(tensor, name=f"{name}/{tensor.name.rpartition('/')[2]}")
            writer.file.tensors.append(part)
    for one in file.operations:
        moved = dataclasses.replace(
            one,
            inputs=[places[index] for index in one.inputs],
            outputs=[places[index] for index in one.outputs],
        )
        writer.file.operations.append(moved)
    (output,) = file.outputs
    writer.file.tensors[places[output]].name = name
    return places[output]
