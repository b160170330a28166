"""Functions of each value by itself."""

import math
from collections.abc import Callable

import numpy as np

from tfcq.integer.kernels.fixed_point import inverse_square_root
from tfcq.integer.kernels.rounding import (
    Array,
    fixed_point,
    half_away,
    high_product,
    multiplied,
    shifted_right,
)
from tfcq.integer.kernels.step import Step, activation_bounds, limits
from tfcq.settings.kernels import XNNPACK

Function = Callable[[Array], Array]
_RELU, _RELU6 = 1, 3


def _logistic(step: Step) -> Array:
    if step.kernels == XNNPACK:
        return _looked_up(step, lambda x: _by_numbers(_exact_logistic, x))
    one = np.float32(1)
    return _looked_up(
        step, lambda x: one / (one + np.exp(-x.astype(np.float64)).astype(np.float32))
    )


def _exact_logistic(number: float) -> float:
    power = math.exp(min(number, 100))
    return power / (1 + power)


def _tanh(step: Step) -> Array:
    return _looked_up(step, lambda x: _by_numbers(math.tanh, x))


def _elu(step: Step) -> Array:
    return _looked_up(step, lambda x: np.where(x < 0, _by_numbers(math.expm1, np.minimum(x, 0)), x))


def _gelu(step: Step) -> Array:
    """Returns it as the optimized kernel has it, which rounds to float32 after every step."""
    step = step.unless(False)
    half, one = np.float32(0.5), np.float32(1)
    if not step.option("approximate", False):
        root = np.float32(-math.sqrt(0.5))
        return _looked_up(step, lambda x: half * x * _by_numbers(math.erfc, x * root))
    root, cube = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
    return _looked_up(
        step,
        lambda x: half * x * (one + _by_numbers(math.tanh, root * (x + cube * x * x * x))),
    )


def _by_numbers(function: Callable[[float], float], values: Array) -> Array:
    """Returns a function of each value, rounded to float32."""
    return np.array([function(float(value)) for value in values]).astype(np.float32)


def _looked_up(step: Step, function: Function) -> Array:
    """Returns what a table of all levels says.

    Args:
        step: the operation.
        function: of float32 numbers.
    """
    source, output = step.tensor(0), step.output
    low, high = limits(source)
    levels = np.arange(low, high + 1) - source.zero_point
    real = levels.astype(np.float32) * source.scale
    with np.errstate(over="ignore"):
        steps = function(real) * (np.float32(1) / output.scale)
    if step.kernels == XNNPACK:
        rounded = np.rint(steps + np.float32(output.zero_point))
    else:
        rounded = half_away(steps) + np.float32(output.zero_point)
    table = np.clip(rounded, *limits(output)).astype(output.dtype)
    return table[step.value(0).astype(np.int64) - low]


def _relu(step: Step) -> Array:
    return _rectified(step, _RELU)


def _relu6(step: Step) -> Array:
    return _rectified(step, _RELU6)


def _rectified(step: Step, activation: int) -> Array:
    source, output = step.tensor(0), step.output
    if not step.is_integer():
        high = {_RELU: None, _RELU6: np.float32(6)}[activation]
        return np.clip(step.value(0), np.float32(0), high)
    fixed = fixed_point(float(source.scale / output.scale))
    levels = multiplied(step.centred(0), *fixed, ties_up=False) + output.zero_point
    return step.stored(levels, activation_bounds(output, activation, to_even=False))


def _leaky_relu(step: Step) -> Array:
    source, output = step.tensor(0), step.output
    slope = np.float32(step.option("alpha"))
    ratio = source.scale / output.scale
    falling = ratio * slope
    step = step.unless(
        2**-8 <= ratio <= 2**7 and -127.99609375 <= falling <= 2**7 and abs(falling) >= 2**-8
    )
    centred = step.centred(0)
    if step.kernels == XNNPACK:
        factors = (int(np.rint(np.float32(256) * one)) for one in (ratio, falling))
        rising, sinking = ((centred * factor + 128) >> 8 for factor in factors)
    else:
        rising = multiplied(centred, *fixed_point(float(ratio)), ties_up=False)
        real = float(source.scale * slope / output.scale)
        sinking = multiplied(centred, *fixed_point(abs(real)), ties_up=False)
        sinking = sinking if real >= 0 else -sinking
    return step.stored(np.where(centred >= 0, rising, sinking) + output.zero_point)


def _prelu(step: Step) -> Array:
    source, slopes, output = step.tensor(0), step.tensor(1), step.output
    centred, factors = step.centred_operands()
    rising = multiplied(centred, *fixed_point(float(source.scale / output.scale)), ties_up=False)
    real = float(source.scale * slopes.scale / output.scale)
    sinking = multiplied(centred * factors, *fixed_point(real), ties_up=False)
    return step.stored(np.where(centred >= 0, rising, sinking) + output.zero_point)


def _hard_swish(step: Step) -> Array:
    """Returns x * relu6(x + 3) / 6 in numbers of 16 bits."""
    source, output = step.tensor(0), step.output
    fine = np.float32(1 / 128) * source.scale
    to_output, exponent = _short(float(fine / output.scale))
    to_gate, gate_exponent = _short(float(fine / (np.float32(3) / np.float32(32768))))
    values = step.centred(0) << 7
    moved = _high_product_16(values, to_output)
    gate = values
    if gate_exponent > 0:
        gate = _saturated(gate << (gate_exponent - 1))
    gate = _high_product_16(gate, to_gate)
    if gate_exponent > 0:
        gate = _saturated(gate << 1)
    elif gate_exponent < 0:
        gate = shifted_right(gate, -gate_exponent, ties_up=False)
    gate = (gate + 2**15) >> 1
    # This product alone is cut toward zero.
    doubled = gate * moved
    cut = np.sign(doubled) * (np.abs(doubled) >> 15)
    levels = shifted_right(cut, -exponent, ties_up=False) + output.zero_point
    return step.stored(levels)


def _short(real: float) -> tuple[int, int]:
    """Returns a multiplier of 15 bits and an exponent."""
    multiplier, exponent = fixed_point(real)
    return min((int(multiplier) + (1 << 15)) >> 16, 32767), int(exponent)


def _high_product_16(values: Array, multiplier: int) -> Array:
    return high_product(values << 16, multiplier)


def _saturated(values: Array) -> Array:
    return np.clip(values, -(2**15), 2**15 - 1)


def _rsqrt(step: Step) -> Array:
    """Returns one divided by square roots of values above zero."""
    source, output = step.tensor(0), step.output
    root = np.sqrt(source.scale) * output.scale
    multiplier, shift = fixed_point(1 / float(root))
    low, high = limits(source)
    table = np.zeros(high - low + 1, np.int64)
    for value in range(1, high - source.zero_point + 1):
        factor, right = inverse_square_root(value)
        found = multiplied(np.int64(1), np.int64(factor), np.int64(20 - right), ties_up=False)
        level = multiplied(found, multiplier, shift - 20, ties_up=False)
        table[value + source.zero_point - low] = level + output.zero_point
    table[source.zero_point - low] = high
    return step.stored(table[step.value(0).astype(np.int64) - low])


RULES = {
    "LOGISTIC": _logistic, "TANH": _tanh, "ELU": _elu, "GELU": _gelu, "RELU": _relu,
    "RELU6": _relu6, "LEAKY_RELU": _leaky_relu, "PRELU": _prelu, "HARD_SWISH": _hard_swish,
    "RSQRT": _rsqrt,
}  # fmt: skip
