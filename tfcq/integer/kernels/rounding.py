"""How integers are scaled from one grid to another: the arithmetic of each set of kernels.

A sum of products stands on the grid of `s_in * s_w`; what is stored stands on the grid of `s_out`.
Three sets of kernels divide by the ratio in three ways, and differ by a step where they tie.
"""

import numpy as np

Array = np.ndarray
# One or several.
Numbers = np.ndarray | np.number | float


def fixed_point(real: Numbers) -> tuple[Array, Array]:
    """Returns multipliers of 31 bits and exponents of two: `real ~ multiplier * 2**(shift - 31)`.

    Args:
        real: float64, not negative.
    """
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    multiplier = half_away(fraction * 2.0**31).astype(np.int64)
    full = multiplier == 2**31
    multiplier, shift = np.where(full, 2**30, multiplier), shift + full
    lost = shift < -31
    return np.where(lost, 0, multiplier), np.where(lost, 0, shift).astype(np.int64)


def half_away(values: Numbers) -> Array:
    """Returns the nearest whole numbers, ties away from zero."""
    values = np.asarray(values)
    # Adding a half first would carry 0.49999997 over.
    whole = np.trunc(values)
    return whole + np.copysign(np.abs(values - whole) >= 0.5, values).astype(values.dtype)


def high_product(values: Numbers, multiplier: Numbers) -> Array:
    """Returns `values * multiplier / 2**31`, ties up; int64."""
    product = np.asarray(values * np.asarray(multiplier, np.int64))
    product += 2**30
    product >>= 31
    return product


def shifted_right(values: Array, bits: Numbers, ties_up: Array | bool) -> Array:
    """Returns int64 values divided by a power of two, ties up or away from zero."""
    bits = np.asarray(bits, np.int64)
    half = np.where(bits > 0, 1 << np.maximum(bits - 1, 0), 0)
    if np.all(ties_up):
        return (values + half) >> bits
    return (values + half - ((values < 0) & (bits > 0) & ~np.asarray(ties_up))) >> bits


def multiplied(
    values: Numbers, multiplier: Numbers, shift: Numbers, ties_up: Array | bool
) -> Array:
    """Returns int64 values times a fixed-point number, rounded twice.

    Args:
        values: int64.
        multiplier: of `fixed_point`.
        shift: of `fixed_point`.
        ties_up: ties of the second rounding go up, else away from zero; those of the first go up.
    """
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    moved = np.left_shift(values, left)
    return shifted_right(high_product(moved, multiplier), right, ties_up)


def in_float32(values: Array, scale: Numbers, bounds: tuple[int, int], zero_point: int) -> Array:
    """Returns integers times a float32 scale, ties to even, bounded before the rounding.

    Args:
        values: integers.
        scale: float32.
        bounds: least and greatest of what is stored.
        zero_point: of what is stored.
    """
    scaled = values.astype(np.float32)
    np.multiply(scaled, scale, out=scaled)
    low, high = (np.float32(bound - zero_point) for bound in bounds)
    np.clip(scaled, low, high, out=scaled)
    np.rint(scaled, out=scaled)
    scaled += np.float32(zero_point)
    return scaled
