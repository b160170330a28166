"""Exponentials of values, as shares of their sum."""

import numpy as np

from tfcq.integer.kernels.fixed_point import exponential, product, reciprocal, scaled
from tfcq.integer.kernels.rounding import (
    Array,
    fixed_point,
    half_away,
    high_product,
    shifted_right,
)
from tfcq.integer.kernels.step import Step
from tfcq.settings.kernels import OPTIMIZED, REFERENCE

_DIFFERENCE_BITS, _SUM_BITS = 5, 12
_LEVELS = 256


def softmax(step: Step) -> Array:
    """Returns shares along the last axis; XNNPACK leaves integers to the optimized kernel."""
    step = step.unless(False)
    values = step.value(0).astype(np.int64)
    below = values.max(axis=-1, keepdims=True) - values
    if step.kernels == REFERENCE:
        return step.stored(_in_fixed_point(step, below) + step.output.zero_point)
    return step.stored(_in_float32(step, below) + step.output.zero_point)


def _in_float32(step: Step, below: Array) -> Array:
    assert step.kernels == OPTIMIZED
    rate = -step.tensor(0).scale * np.float32(step.option("beta", 1.0))
    exponents = rate * np.arange(_LEVELS, dtype=np.float32)
    table = np.exp(exponents.astype(np.float64)).astype(np.float32)
    powers = table[below]
    # One after another: another order rounds to another sum.
    sums = np.add.accumulate(powers, axis=-1)[..., -1:]
    return half_away(powers * (np.float32(1) / (sums * step.output.scale)))


def _in_fixed_point(step: Step, below: Array) -> Array:
    scale = np.float64(step.option("beta", 1.0)) * np.float64(step.tensor(0).scale)
    multiplier, shift = fixed_point(min(scale * 2 ** (31 - _DIFFERENCE_BITS), 2.0**31 - 1))
    left = int(shift)
    greatest = int(
        (2**_DIFFERENCE_BITS - 1) * 2 ** (31 - _DIFFERENCE_BITS) / 2**left
    )  # what five bits hold
    differences = np.minimum(np.arange(_LEVELS, dtype=np.int64), greatest)
    table = exponential(high_product(-differences << left, multiplier))
    table[np.arange(_LEVELS) > greatest] = 0
    powers = table[below]
    sums = scaled(table, -_SUM_BITS)[below].sum(axis=-1, keepdims=True)
    share, exceeding = reciprocal(sums, _SUM_BITS)
    return shifted_right(product(share, powers), exceeding + 31 - 8, ties_up=False)


RULES = {"SOFTMAX": softmax}
