"""Operations on each value by itself: sums and products of tensors, changes of the grid."""

import numpy as np

from tfcq.deployment.kernels.rounding import (
    OPTIMIZED,
    XNNPACK,
    Array,
    fixed_point,
    half_away,
    in_float32,
    multiplied,
)
from tfcq.deployment.kernels.step import Step, limits

# Bits by which operands of a sum are shifted left before they are rounded to a common scale.
_GUARD_BITS = 20


def add(step: Step) -> Array:
    """Returns a sum."""
    return _sum(step, 1)


def subtract(step: Step) -> Array:
    """Returns a difference."""
    return _sum(step, -1)


def _sum(step: Step, sign: int) -> Array:
    if not step.is_integer():
        left, right = step.value(0), step.value(1)
        return activated(step, left + right if sign > 0 else left - right)
    tensors = step.tensor(0), step.tensor(1)
    ratios = [tensor.scale / step.output.scale for tensor in tensors]
    step = step.unless(all(2**-10 <= ratio < 2**8 for ratio in ratios))
    left, right = (_centred(step, index) for index in (0, 1))
    bounds = step.bounds()
    if step.kernels == XNNPACK:
        shift = 20 - int(np.floor(np.log2(max(ratios))))
        first, second = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
        total = left * first + sign * right * second + (1 << (shift - 1))
        return step.stored((total >> shift) + step.output.zero_point, bounds)
    twice = 2 * float(max(tensor.scale for tensor in tensors))
    scaled = []
    for value, tensor in zip((left, right), tensors, strict=True):
        multiplier, shift = fixed_point(float(tensor.scale) / twice)
        scaled.append(multiplied(value << _GUARD_BITS, multiplier, shift, ties_up=False))
    final = fixed_point(twice / float(np.float32(2**_GUARD_BITS) * step.output.scale))
    levels = multiplied(scaled[0] + sign * scaled[1], *final, ties_up=False)
    return step.stored(levels + step.output.zero_point, bounds)


def multiply(step: Step) -> Array:
    """Returns a product."""
    if not step.is_integer():
        return activated(step, step.value(0) * step.value(1))
    scale = step.tensor(0).scale * step.tensor(1).scale / step.output.scale
    step = step.unless(2**-16 <= scale < 2**8)
    products = _centred(step, 0) * _centred(step, 1)
    bounds = step.bounds()
    if step.kernels == XNNPACK:
        return step.stored(in_float32(products, scale, bounds, step.output.zero_point))
    levels = multiplied(products, *fixed_point(scale), ties_up=False)
    return step.stored(levels + step.output.zero_point, bounds)


def quantize(step: Step) -> Array:
    """Returns values on the output's grid."""
    source, output = step.tensor(0), step.output
    if source.dtype == "float32":
        if step.kernels == XNNPACK:
            scaled = step.value(0) * (np.float32(1) / output.scale)
            return step.stored(np.rint(scaled) + np.float32(output.zero_point))
        return step.stored(half_away(step.value(0) / output.scale) + output.zero_point)
    ratio = source.scale / output.scale
    step = step.unless(source.dtype == output.dtype and 2**-8 <= ratio <= 2**7)
    centred = _centred(step, 0)
    if step.kernels == XNNPACK:
        levels = (centred * int(np.rint(np.float32(256) * ratio)) + 128) >> 8
    else:
        real = np.float64(source.scale) / np.float64(output.scale)
        levels = multiplied(centred, *fixed_point(real), ties_up=False)
    return step.stored(levels + output.zero_point)


def dequantize(step: Step) -> Array:
    """Returns levels as float32."""
    source = step.tensor(0)
    if source.dtype == "float16":
        return step.value(0).astype(np.float32)
    return _centred(step, 0).astype(np.float32) * source.scale


def _centred(step: Step, index: int) -> Array:
    """Returns levels without the zero point, int64."""
    return step.value(index).astype(np.int64) - step.tensor(index).zero_point


def activated(step: Step, values: Array) -> Array:
    """Returns float32 values under the fused activation."""
    low, high = {0: (None, None), 1: (0, None), 2: (-1, 1), 3: (0, 6)}[
        step.option("fusedActivationFunction")
    ]
    return values if low is None else np.clip(values, np.float32(low), high)


RULES = {
    "ADD": add, "SUB": subtract, "MUL": multiply, "QUANTIZE": quantize, "DEQUANTIZE": dequantize,
}  # fmt: skip
_ = (OPTIMIZED, limits)
