"""Small `.tflite` files, of an operation or a few, for the emulation."""

import numpy as np

from tfcq.integer.lite_file import LiteFile, Operation, Tensor


def levels(shape, scale, zero_point=0, dtype="int8", name="levels"):
    """Returns a tensor on a grid, without values."""
    return Tensor(
        name, tuple(shape), dtype, np.atleast_1d(np.float32(scale)), np.array([zero_point])
    )


def real(shape, name="real"):
    """Returns a float32 tensor without values."""
    return Tensor(name, tuple(shape), "float32")


def constant(values, scales=None, zero_point=0, axis=0):
    """Returns a tensor with values, on a grid where scales are given."""
    values = np.asarray(values)
    made = Tensor("constant", values.shape, str(values.dtype), axis=axis, data=values)
    if scales is not None:
        made.scales = np.atleast_1d(np.float32(scales))
        made.zero_points = np.full(len(made.scales), zero_point)
    return made


def chain(source, *steps):
    """Returns a file of operations.

    Args:
        source: the input tensor.
        steps: each (kind, inputs, outputs, options, version).
    """
    tensors = [source]
    for _, inputs, outputs, _, _ in steps:
        tensors += [one for one in (*inputs, *outputs) if one is not None and one not in tensors]
    number = {id(tensor): index for index, tensor in enumerate(tensors)}
    operations = [
        Operation(
            kind,
            [-1 if one is None else number[id(one)] for one in inputs],
            [number[id(one)] for one in outputs],
            options,
            version,
        )
        for kind, inputs, outputs, options, version in steps
    ]
    return LiteFile(tensors, operations, [0], operations[-1].outputs)


def single(kind, inputs, output, version=2, **options):
    """Returns a file of one operation, the first of whose inputs is that of the file."""
    return chain(inputs[0], (kind, inputs, [output], options, version))


def pictures(tensor, count=200, seed=0):
    """Returns random values of every level for a file's input, [count, ...]."""
    rng = np.random.default_rng(seed)
    shape = (count, *tensor.shape[1:])
    if tensor.dtype == "float32":
        # Among them values half-way between two steps of 1/4.
        return (rng.integers(-600, 600, shape) / 8).astype(np.float32)
    found = np.iinfo(tensor.dtype)
    return rng.integers(found.min, found.max + 1, shape).astype(tensor.dtype)
