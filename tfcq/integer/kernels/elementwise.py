"""Operations on each value by itself: sums and products of tensors, changes of the grid."""

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

# Bits by which operands of a sum are shifted left before they are rounded to a common scale.
_GUARD_BITS = 20
# Values that optimized conversions to and from float32, and between grids, compute together.
_CONVERTED, _REQUANTIZED = 8, 16


def add(step: Step) -> Array:
    """Returns a sum."""
    return _sum(step, 1)


def subtract(step: Step) -> Array:
    """Returns a difference."""
    return _sum(step, -1)


def _sum(step: Step, sign: int) -> Array:
    if not step.is_integer():
        left, right = step.operands()
        return activated(step, left + right if sign > 0 else left - right)
    tensors = step.tensor(0), step.tensor(1)
    ratios = [tensor.scale / step.output.scale for tensor in tensors]
    step = step.unless(all(2**-10 <= ratio < 2**8 for ratio in ratios))
    bounds = step.bounds()
    if step.kernels == XNNPACK:
        left, right = step.centred_operands()
        shift = 20 - int(np.floor(np.log2(max(ratios))))
        first, second = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
        total = left * first + sign * right * second + (1 << (shift - 1))
        return step.stored((total >> shift) + step.output.zero_point, bounds)
    left, right, twice = _on_common_scale(step, _GUARD_BITS)
    final = fixed_point(twice / float(np.float32(2**_GUARD_BITS) * step.output.scale))
    levels = multiplied(left + sign * right, *final, ties_up=False)
    return step.stored(levels + step.output.zero_point, bounds)


def _on_common_scale(step: Step, guard: int) -> tuple[Array, Array, float]:
    """Returns both operands with bits to guard their rounding, and twice the greater scale."""
    scales = [float(step.tensor(index).scale) for index in (0, 1)]
    twice = 2 * max(scales)
    left, right = (
        multiplied(centred << guard, *fixed_point(scale / twice), ties_up=False)
        for centred, scale in zip(step.centred_operands(), scales, strict=True)
    )
    return left, right, twice


def multiply(step: Step) -> Array:
    """Returns a product."""
    if not step.is_integer():
        return activated(step, np.multiply(*step.operands()))
    scale = step.tensor(0).scale * step.tensor(1).scale / step.output.scale
    step = step.unless(2**-16 <= scale < 2**8)
    products = np.multiply(*step.centred_operands())
    bounds = step.bounds()
    if step.kernels == XNNPACK:
        return step.stored(in_float32(products, scale, bounds, step.output.zero_point))
    levels = multiplied(products, *fixed_point(scale), ties_up=False)
    return step.stored(levels + step.output.zero_point, bounds)


def squared_difference(step: Step) -> Array:
    """Returns squares of differences."""
    if not step.is_integer():
        difference = np.subtract(*step.operands())
        return difference * difference
    guard = 7
    left, right, twice = _on_common_scale(step, guard)
    real = twice * twice / float(np.float32(1 << 2 * guard) * step.output.scale)
    levels = multiplied((left - right) ** 2, *fixed_point(real), ties_up=False)
    return step.stored(levels + step.output.zero_point)


def maximum(step: Step) -> Array:
    """Returns the greater of two values."""
    return np.maximum(*step.operands())


def minimum(step: Step) -> Array:
    """Returns the lesser of two values."""
    return np.minimum(*step.operands())


def negative(step: Step) -> Array:
    """Returns float32 values with the other sign."""
    return -step.value(0)


def quantize(step: Step) -> Array:
    """Returns values on the output's grid."""
    source, output = step.tensor(0), step.output
    if source.dtype == "float32":
        return step.stored(_whole(step) + np.float32(output.zero_point))
    ratio = source.scale / output.scale
    step = step.unless(source.dtype == output.dtype and 2**-8 <= ratio <= 2**7)
    centred = step.centred(0)
    if step.kernels == XNNPACK:
        levels = (centred * int(np.rint(np.float32(256) * ratio)) + 128) >> 8
    else:
        real = np.float64(source.scale) / np.float64(output.scale)
        together = _in_vectors(step, _REQUANTIZED) & (step.kernels == OPTIMIZED)
        levels = multiplied(centred, *fixed_point(real), ties_up=together)
    return step.stored(levels + output.zero_point)


def _whole(step: Step) -> Array:
    """Returns float32 values in steps of the output, rounded."""
    values, scale = step.value(0), step.output.scale
    if step.kernels == REFERENCE:
        return half_away(values / scale)
    together = np.rint(values * (np.float32(1) / scale))
    if step.kernels == XNNPACK:
        return together
    return np.where(_in_vectors(step, _CONVERTED), together, half_away(values / np.float64(scale)))


def dequantize(step: Step) -> Array:
    """Returns levels as float32."""
    source = step.tensor(0)
    exact = step.centred(0).astype(np.float32) * source.scale
    if step.kernels != OPTIMIZED:
        return exact
    moved = np.float32(-source.zero_point) * source.scale
    return np.where(_in_vectors(step, _CONVERTED), step.value(0) * source.scale + moved, exact)


def _in_vectors(step: Step, width: int) -> Array:
    """Returns which values of an image optimized kernels compute together, in its shape."""
    shape = step.value(0).shape[1:]
    size = int(np.prod(shape))
    return (np.arange(size) < size // width * width).reshape(shape)


def activated(step: Step, values: Array) -> Array:
    """Returns float32 values under the fused activation."""
    low, high = {0: (None, None), 1: (0, None), 2: (-1, 1), 3: (0, 6)}[
        step.option("fusedActivationFunction")
    ]
    return values if low is None else np.clip(values, np.float32(low), high)


RULES = {
    "ADD": add, "SUB": subtract, "MUL": multiply, "SQUARED_DIFFERENCE": squared_difference,
    "MAXIMUM": maximum, "MINIMUM": minimum, "NEG": negative, "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
}  # fmt: skip
