"""Operations that make one value of several: means and pools."""

import dataclasses

import numpy as np

from tfcq.integer.kernels.products import paddings
from tfcq.integer.kernels.rounding import (
    Array,
    fixed_point,
    half_away,
    multiplied,
)
from tfcq.integer.kernels.step import Step
from tfcq.settings.kernels import OPTIMIZED, XNNPACK

# Channels that the optimized mean computes together.
_VECTOR = 16


def mean(step: Step) -> Array:
    """Returns means along axes."""
    source, output = step.tensor(0), step.output
    sums, over, count = _summed(step)
    if step.kernels == XNNPACK:
        return step.stored(summed_in_float32(step, sums, count, np.float32(1) / np.float32(count)))
    maps = step.value(0).ndim == 5 and step.option("keepDims", False)
    if step.kernels == OPTIMIZED and maps and over == (2, 3):
        return _mean_of_maps(step, sums, count)
    sums -= source.zero_point * count
    multiplier, shift = fixed_point(float(source.scale) / float(output.scale))
    more = min(count.bit_length() - 1, 32, 31 + int(shift))
    share = (int(multiplier) << more) // count
    levels = multiplied(sums, share, shift - more, ties_up=False)
    return step.stored(levels + output.zero_point)


def total(step: Step) -> Array:
    """Returns sums along axes."""
    source, output = step.tensor(0), step.output
    sums, _, count = _summed(step)
    axes = step.value(1)
    if step.kernels == XNNPACK:
        return step.stored(summed_in_float32(step, sums, count, np.float32(1)))
    if step.kernels == OPTIMIZED:
        scale = source.scale / output.scale
        bias = np.float32(-source.zero_point) * scale * np.float32(count)
        levels = half_away(sums.astype(np.float32) * scale + bias)
    else:
        # LiteRT's kernel takes signed bytes for unsigned ones, here and in what it stores.
        sums = _summed(dataclasses.replace(step, values=[step.value(0).view(np.uint8), axes]))[0]
        fixed = fixed_point(float(source.scale) / float(output.scale))
        levels = multiplied(sums - source.zero_point * count, *fixed, ties_up=False)
        levels = np.clip(levels + output.zero_point, 0, 255).astype(np.uint8).view(output.dtype)
        return step.stored(levels)
    return step.stored(levels + output.zero_point)


def _greatest(step: Step) -> Array:
    over, keep = _axes(step)
    return step.value(0).max(axis=over, keepdims=keep)


def _least(step: Step) -> Array:
    over, keep = _axes(step)
    return step.value(0).min(axis=over, keepdims=keep)


def _product(step: Step) -> Array:
    """Returns products, of sizes of a shape."""
    over, keep = _axes(step)
    return step.value(0).prod(axis=over, keepdims=keep, dtype=step.output.dtype)


def _axes(step: Step) -> tuple[tuple[int, ...], bool]:
    """Returns the axes to reduce, images among those counted, and whether they are kept."""
    rank = step.value(0).ndim - 1
    axes = sorted({int(axis) % rank for axis in step.constant(1).ravel()})
    return tuple(axis + 1 for axis in axes), bool(step.option("keepDims", False))


def _summed(step: Step) -> tuple[Array, tuple[int, ...], int]:
    """Returns sums of levels, the axes they ran along, images among them, and of how many."""
    over, keep = _axes(step)
    sums = step.value(0).sum(axis=over, dtype=np.int64, keepdims=keep)
    return sums, over, int(np.prod([step.value(0).shape[axis] for axis in over]))


def summed_in_float32(step: Step, sums: Array, count: int, share: np.float32) -> Array:
    """Returns levels of sums with their zero points, times a share, as XNNPACK converts them."""
    source, output = step.tensor(0), step.output
    scale = source.scale / output.scale * share
    # What the zero points add up to moves the output's.
    offset = np.float32(output.zero_point) - np.float32(count * source.zero_point) * scale
    return np.rint(sums.astype(np.float32) * scale + offset)


def _mean_of_maps(step: Step, sums: Array, count: int) -> Array:
    """Returns means over height and width, whose zero point is rounded by itself."""
    source, output = step.tensor(0), step.output
    moved = half_away(np.float32(source.zero_point) * source.scale / output.scale)
    scale = source.scale / (np.float32(count) * output.scale)
    depth = sums.shape[-1]
    ties_up = np.arange(depth) < depth // _VECTOR * _VECTOR
    levels = multiplied(sums, *fixed_point(scale), ties_up=ties_up)
    return step.stored(levels + (output.zero_point - int(moved)))


def average_pool_2d(step: Step) -> Array:
    """Returns means of windows, of what lies inside the map."""
    windows, inside = _pooled(step, 0)
    sums = windows.sum(axis=(4, 5), dtype=np.int64)
    counts = inside[:, :, None]
    # Divided as C does, toward zero.
    halves = np.where(sums > 0, counts // 2, -(counts // 2))
    sums += halves
    levels = np.sign(sums) * (np.abs(sums) // counts)
    return step.of_maps(step.stored(levels, step.on(OPTIMIZED).bounds()))


def max_pool_2d(step: Step) -> Array:
    """Returns the greatest of each window."""
    low = np.iinfo(step.output.dtype).min if step.is_integer() else -np.inf
    windows, _ = _pooled(step, low)
    levels = windows.max(axis=(4, 5))
    return step.of_maps(step.stored(levels, step.bounds()))


def _pooled(step: Step, filling: float) -> tuple[Array, Array]:
    """Returns windows as views, and how many of each window's places lie inside the map."""
    images = step.maps()
    size = step.option("filterHeight", 1), step.option("filterWidth", 1)
    strides = step.option("strideH", 1), step.option("strideW", 1)
    around = paddings(step.option("padding"), images.shape[1:3], size, strides)

    def windows(maps: Array, value: float) -> Array:
        padded = np.pad(maps, ((0, 0), *around, (0, 0)), constant_values=value)
        found = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
        return found[:, :: strides[0], :: strides[1]]

    inside = windows(np.ones((1, *images.shape[1:3], 1), np.int64), 0).sum(axis=(0, 3, 4, 5))
    return windows(images, filling), inside


RULES = {
    "MEAN": mean, "SUM": total, "REDUCE_MAX": _greatest, "REDUCE_MIN": _least,
    "REDUCE_PROD": _product, "AVERAGE_POOL_2D": average_pool_2d, "MAX_POOL_2D": max_pool_2d,
}  # fmt: skip
