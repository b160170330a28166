"""Operations that move values and compute none."""

from collections.abc import Callable

import numpy as np

from tfcq.errors import UserError
from tfcq.integer.kernels.rounding import Array
from tfcq.integer.kernels.step import Step


def reshape(step: Step) -> Array:
    """Returns the values in another shape, of which one size may be left open."""
    target = step.constant(1) if step.has(1) else step.option("newShape", None)
    if target is None:
        target = step.output.shape
    return step.value(0).reshape(len(step.value(0)), *(int(size) for size in target))


def squeeze(step: Step) -> Array:
    """Returns the values without axes of size one."""
    value, axes = step.value(0), step.option("squeezeDims", None)
    if axes is None or not len(axes):
        axes = [axis for axis, size in enumerate(value.shape[1:]) if size == 1]
    return value.squeeze(tuple(axis % (value.ndim - 1) + 1 for axis in axes))


def expand_dims(step: Step) -> Array:
    """Returns the values with one more axis, of size one."""
    value, axis = step.value(0), int(step.constant(1).ravel()[0])
    return np.expand_dims(value, axis % value.ndim + 1)


def pad(step: Step) -> Array:
    """Returns values with zeros, or another value, around them."""
    around = [(0, 0), *(tuple(pair) for pair in step.constant(1).tolist())]
    if step.has(2):
        filling = step.constant(2).ravel()[0]
    else:
        filling = step.tensor(0).zero_point if step.is_integer() else 0
    return np.pad(step.value(0), around, constant_values=filling)


def concatenation(step: Step) -> Array:
    """Returns values behind one another along an axis, which have one grid."""
    count = max(len(value) for value in step.values if value is not None)
    parts = [
        np.broadcast_to(step.value(index), (count, *step.value(index).shape[1:]))
        for index in range(len(step.inputs))
    ]
    return np.concatenate(parts, axis=_axis(step, step.option("axis")))


def transpose(step: Step) -> Array:
    """Returns values with their axes in another order."""
    return step.value(0).transpose(0, *(step.constant(1) + 1))


def split(step: Step) -> list[Array]:
    """Returns equal parts along an axis; the axis is the first input."""
    axis = int(step.constant(0).ravel()[0])
    value = step.value(1)
    return np.split(value, len(step.outputs), axis=axis % (value.ndim - 1) + 1)


def strided_slice(step: Step) -> Array:
    """Returns every so many-th value between two ends of each axis."""
    for name in ("ellipsisMask", "newAxisMask"):
        if step.option(name):
            raise UserError(f"The emulation has no rule for STRIDED_SLICE with {name}.")
    begins, ends, strides = (step.constant(index).tolist() for index in (1, 2, 3))
    taken: list[slice | int] = [slice(None)]
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):

        def is_masked(name: str, axis: int = axis) -> bool:
            return bool(step.option(name) >> axis & 1)

        if is_masked("shrinkAxisMask"):
            taken.append(begin)
            continue
        if step.option("offset", False):
            end += begin
        taken.append(
            slice(
                None if is_masked("beginMask") else begin,
                None if is_masked("endMask") else end,
                stride,
            )
        )
    return step.value(0)[tuple(taken)]


def resize_nearest_neighbor(step: Step) -> Array:
    """Returns maps of another size, of the nearest values."""
    value = step.value(0)
    for axis in (1, 2):
        old, new = value.shape[axis + 1], int(step.constant(1)[axis - 1])
        aligned = step.option("alignCorners", False) and new > 1
        ratio = np.float32((old - 1) / (new - 1)) if aligned else np.float32(old) / np.float32(new)
        centre = np.float32(0.5 if step.option("halfPixelCenters", False) else 0)
        places = (np.arange(new, dtype=np.float32) + centre) * ratio
        nearest = np.trunc(places + np.float32(0.5)) if aligned else np.floor(places)
        value = value.take(np.clip(nearest.astype(int), 0, old - 1), axis=axis + 1)
    return value


def shape(step: Step) -> Array:
    """Returns the shape of a tensor, the same for all images."""
    return np.array([step.value(0).shape[1:]], step.output.dtype)


def pack(step: Step) -> Array:
    """Returns values along a new axis."""
    axis = step.option("axis")
    parts = np.broadcast_arrays(*(value for value in step.values if value is not None))
    return np.stack(parts, axis=axis + 1 if axis >= 0 else axis)


def gather(step: Step) -> Array:
    """Returns the values at places along an axis."""
    if step.option("batchDims"):
        raise UserError("The emulation has no rule for GATHER with batchDims.")
    return np.take(step.value(0), step.constant(1), axis=_axis(step, step.option("axis")))


def tile(step: Step) -> Array:
    """Returns the values repeated along each axis."""
    return np.tile(step.value(0), (1, *step.constant(1)))


def _axis(step: Step, axis: int) -> int:
    """Returns the place of an axis of the tensor behind that of images."""
    return axis % (step.value(0).ndim - 1) + 1


RULES: dict[str, Callable[[Step], Array | list[Array]]] = {
    "RESHAPE": reshape, "SQUEEZE": squeeze, "EXPAND_DIMS": expand_dims, "PAD": pad, "PADV2": pad,
    "CONCATENATION": concatenation, "TRANSPOSE": transpose, "SPLIT": split,
    "SHAPE": shape, "PACK": pack, "GATHER": gather, "TILE": tile,
    "STRIDED_SLICE": strided_slice, "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
}  # fmt: skip
