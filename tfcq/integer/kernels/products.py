"""Sums of products: convolutions, dense layers and products of matrices."""

import numpy as np

from tfcq.integer.kernels.rounding import (
    Array,
    fixed_point,
    half_away,
    in_float32,
    multiplied,
)
from tfcq.integer.kernels.step import Step
from tfcq.settings.kernels import OPTIMIZED, REFERENCE, XNNPACK

SAME = 0
# Of differences of two levels.
_GREATEST = 255
# Channels that optimized kernels compute together.
_VECTOR = 8
# Windows of so many values are laid out at a time.
_CHUNK = 1 << 23


def conv_2d(step: Step) -> Array:
    """Returns a convolution, of groups where the kernel has less channels than the input."""
    step = step.unless(_delegated(step))
    images, kernel = _images(step), step.constant(1).astype(np.float64)
    rows, columns, depth = kernel.shape[1:]
    groups = images.shape[-1] // depth
    if groups > 1 and step.kernels == OPTIMIZED:
        # LiteRT has no optimized kernel of groups.
        step = step.on(REFERENCE)
    matrices = kernel.reshape(groups, -1, rows * columns * depth)
    chunk = max(1, _CHUNK // (images[0].size * rows * columns))
    found = []
    for start in range(0, len(images), chunk):
        views = _windows(step, images[start : start + chunk], (rows, columns))
        parts = []
        for group, matrix in enumerate(matrices):
            channels = views[..., group * depth : (group + 1) * depth]
            product = exact_product(channels.reshape(-1, matrix.shape[1]), matrix.T)
            parts.append(product.reshape(*views.shape[:3], -1))
        found.append(np.concatenate(parts, axis=-1))
    return step.of_maps(_requantized(step, np.concatenate(found)))


def depthwise_conv_2d(step: Step) -> Array:
    """Returns a convolution of each channel by itself."""
    step = step.unless(_delegated(step))
    images, kernel = _images(step), step.constant(1).astype(np.int32)[0]
    rows, columns = kernel.shape[:2]
    repeated = kernel.shape[-1] // images.shape[-1]
    if repeated > 1:
        images = np.repeat(images, repeated, axis=-1)
    windows = _windows(step, images, (rows, columns))
    sums = np.zeros(windows.shape[:3] + images.shape[-1:], np.int32)
    for row in range(rows):
        for column in range(columns):
            sums += windows[:, :, :, row, column].astype(np.int32) * kernel[row, column]
    return step.of_maps(_requantized(step, sums))


def fully_connected(step: Step) -> Array:
    """Returns a dense layer."""
    step = step.unless(_delegated(step))
    weights = step.constant(1).astype(np.float64)
    inputs = step.value(0).astype(np.int16) - np.int16(step.tensor(0).zero_point)
    if len(step.tensor(1).scales) == 1:
        weights = weights - step.tensor(1).zero_point
    flat = inputs.reshape(-1, weights.shape[1])
    levels = _requantized(step, exact_product(flat, weights.T))
    if step.option("keepNumDims", False):
        return levels.reshape(*inputs.shape[:-1], len(weights))
    return levels.reshape(len(inputs), -1, len(weights))


def batch_matmul(step: Step) -> Array:
    """Returns products of matrices."""
    step = step.unless(step.tensor(1).zero_point == 0)
    left, right = (
        step.value(index).astype(np.float64) - step.tensor(index).zero_point for index in (0, 1)
    )
    if step.option("adjX", False):
        left = left.swapaxes(-1, -2)
    if step.option("adjY", False):
        right = right.swapaxes(-1, -2)
    return _requantized(step, np.matmul(left, right))


def exact_product(left: Array, right: Array) -> Array:
    """Returns the product of matrices of integers, without a rounding.

    Args:
        left: [a, b] differences of two levels.
        right: [b, c].
    """
    # Every partial sum is an integer that float32 holds.
    small = np.abs(right).sum(axis=0).max(initial=0) * _GREATEST < 2**24
    dtype = np.float32 if small else np.float64
    return left.astype(dtype) @ right.astype(dtype)


def _delegated(step: Step) -> bool:
    """Returns whether XNNPACK takes the operation."""
    kernel = step.tensor(1)
    taken = kernel.dtype == "int8"
    if step.operation.kind == "FULLY_CONNECTED" and kernel.dtype == "int4":
        # Two levels a byte, from rows that fill theirs.
        taken = kernel.shape[-1] % 2 == 0
    return bool(taken and kernel.data is not None and np.all(kernel.zero_points == 0))


def _images(step: Step) -> Array:
    """Returns maps without their zero point, [images, height, width, channels]."""
    return step.maps().astype(np.int16) - np.int16(step.tensor(0).zero_point)


def _windows(step: Step, images: Array, size: tuple[int, int]) -> Array:
    """Returns windows of maps as views, [images, height, width, rows, columns, channels]."""
    strides = step.option("strideH", 1), step.option("strideW", 1)
    dilations = step.option("dilationHFactor", 1), step.option("dilationWFactor", 1)
    padding = paddings(step.option("padding"), images.shape[1:3], size, strides, dilations)
    images = np.pad(images, ((0, 0), *padding, (0, 0)))
    spans = [dilation * (extent - 1) + 1 for dilation, extent in zip(dilations, size, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(images, spans, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def paddings(
    kind: int,
    extents: tuple[int, ...],
    size: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int] = (1, 1),
) -> list[tuple[int, int]]:
    """Returns what is added before and after the height and the width."""
    found = []
    for extent, window, stride, dilation in zip(extents, size, strides, dilations, strict=True):
        span = dilation * (window - 1) + 1
        total = max((-(-extent // stride) - 1) * stride + span - extent, 0)
        before = total // 2
        found.append((before, total - before) if kind == SAME else (0, 0))
    return found


def _requantized(step: Step, sums: Array) -> Array:
    """Returns sums, without a bias so far, as the output's levels."""
    first, second, output = step.tensor(0), step.tensor(1), step.output
    bounds = step.bounds()
    if step.kernels == XNNPACK:
        scale = first.scale * second.scales / output.scale
        if step.has(2):
            sums = sums.astype(np.int64) + step.constant(2)
        return step.stored(in_float32(sums, scale, bounds, output.zero_point))
    totals = sums.astype(np.int64)
    if step.has(2):
        totals += step.constant(2)
    ratio = np.float64(first.scale) * second.scales.astype(np.float64) / np.float64(output.scale)
    kind = step.operation.kind
    if kind == "FULLY_CONNECTED" and step.kernels == REFERENCE and not step.micro:
        levels = half_away(totals * ratio)
    else:
        if kind in ("FULLY_CONNECTED", "BATCH_MATMUL") and len(second.scales) == 1:
            # The product of the scales is a float32 there.
            ratio = (first.scale * second.scales).astype(np.float64) / np.float64(output.scale)
        fixed = fixed_point(np.broadcast_to(ratio, totals.shape[-1:]))
        # LiteRT has no optimized product of two computed matrices.
        ties_up = np.full(totals.shape[-1:], step.kernels == OPTIMIZED and kind != "BATCH_MATMUL")
        if kind == "DEPTHWISE_CONV_2D":
            # What is left of the vectors is computed by itself.
            ties_up[len(ties_up) // _VECTOR * _VECTOR :] = False
        levels = multiplied(totals, *fixed, ties_up=ties_up)
    levels += output.zero_point
    return step.stored(levels, bounds)


RULES = {
    "CONV_2D": conv_2d, "DEPTHWISE_CONV_2D": depthwise_conv_2d, "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batch_matmul,
}  # fmt: skip
