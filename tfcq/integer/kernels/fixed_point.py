"""Functions of numbers whose point is fixed: exponential, reciprocal, inverse square root.

Values are int64 arrays that hold 32-bit numbers; `Q5` is one of five bits before the point, so that
`raw / 2**26` is meant.
"""

import numpy as np

from tfcq.integer.kernels.rounding import Array, Numbers, high_product, shifted_right

_LOW, _HIGH = -(2**31), 2**31 - 1
# e ** -(2**exponent) in Q0, by the exponent.
_POWERS = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}


def product(left: Numbers, right: Numbers) -> Array:
    """Returns the product, with the bits before the point of both."""
    found = high_product(np.asarray(left, np.int64), np.asarray(right, np.int64))
    return np.minimum(found, _HIGH)


def scaled(values: Array, exponent: int) -> Array:
    """Returns values times a power of two, saturated."""
    if exponent < 0:
        return shifted_right(values, -exponent, ties_up=False)
    return np.clip(values << exponent, _LOW, _HIGH)


def exponential(values: Array) -> Array:
    """Returns e to the power of numbers up to 0, Q5, as Q0."""
    quarter = 1 << 24
    within = (values & (quarter - 1)) - quarter
    found = _exponential_near_zero(within << 5)
    rest = within - values
    for exponent, power in _POWERS.items():
        found = np.where(rest & (1 << (26 + exponent)), product(found, power), found)
    return np.where(values == 0, _HIGH, found)


def _exponential_near_zero(values: Array) -> Array:
    """Returns e to the power of numbers from -1/4 to 0, Q0: Taylor's series around -1/8."""
    constant = 1895147668
    x = values + (1 << 28)
    squared = product(x, x)
    fourth = scaled(product(squared, squared), -2)
    series = scaled(product(fourth + product(squared, x), 715827883) + squared, -1)
    return np.minimum(constant + product(x + series, constant), _HIGH)


def reciprocal(values: Array, integer_bits: int) -> tuple[Array, Array]:
    """Returns mantissas, Q0, of 1 / values, and by how many bits values exceed one."""
    headroom = 32 - np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shifted = (values << headroom) - 2**31
    # (1 + value) / 2, half away from zero.
    half = (shifted + _HIGH + 1) // 2
    x = 1515870810 + product(half, -1010580540)
    for _ in range(3):
        missing = (1 << 29) - product(half, x)
        x = x + scaled(product(x, missing), 2)
    return scaled(x, 1), integer_bits - headroom


def inverse_square_root(value: int) -> tuple[int, int]:
    """Returns a multiplier of 31 bits and a shift to the right for 1 / sqrt(value)."""
    if value <= 1:
        return _HIGH, 0
    shift = 11
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift -= pairs
    number = np.asarray((value << 2 * pairs) >> 1)
    half = scaled(number, -1)
    x = np.asarray(1 << 28)
    for _ in range(5):
        cubed = scaled(product(product(x, x), x), 6)
        x = scaled(product((1 << 28) + (1 << 27), x) - product(half, cubed), 3)
    found = int(product(x, 1518500250))
    return (found << -shift, 0) if shift < 0 else (found, shift)
