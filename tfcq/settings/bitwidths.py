"""Bit-widths as text and as values: `fp`, `4w8a`, `2-8`."""

import dataclasses
import re

from tfcq.errors import UserError

LOWEST_BITS = 2
HIGHEST_BITS = 16
# How a step draws bits; those with a period keep to it or repeat with it.
PERIODIC = ("epoch", "cyclic")
BIT_SCHEDULES = ("uniform", *PERIODIC, "list", "fixed")


@dataclasses.dataclass(frozen=True)
class BitWidth:
    """Bits of weights and activations; `None` stands for float.

    Args:
        weights: bits of the weights, 2 to 16, or None for float.
        activations: bits of the activations, 2 to 16, or None for float.

    Example:

        >>> str(tfcq.BitWidth(4, 8)), str(tfcq.BitWidth(None, None))
        ('4w8a', 'fp')
    """

    weights: int | None
    activations: int | None

    def __str__(self) -> str:
        if self.weights is None and self.activations is None:
            return "fp"
        weights = "" if self.weights is None else f"{self.weights}w"
        activations = "" if self.activations is None else f"{self.activations}a"
        return weights + activations

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.weights is None and self.activations is None

    @property
    def pair(self) -> tuple[int, int]:
        """Bits of weights and of activations, of a bit-width that has both.

        Raises:
            UserError: of a bit-width that leaves one of them in float.
        """
        if self.weights is None or self.activations is None:
            raise UserError(f"Bit-width {self} leaves something in float; allowed: such as 4w4a.")
        return self.weights, self.activations


FLOAT = BitWidth(None, None)


def _nearest_bits(digits: str) -> int:
    # Digits without end, which int() refuses, are as far out of range as their beginning.
    return min(max(int(digits[:9]), LOWEST_BITS), HIGHEST_BITS)


def check_bits(bits: int | None) -> None:
    """Refuses bits that no quantizer here can use.

    Args:
        bits: the number of bits.

    Raises:
        UserError: when it is None or outside 2 to 16.
    """
    if bits is None or not LOWEST_BITS <= bits <= HIGHEST_BITS:
        raise UserError(f"Bits {bits} cannot be used; allowed: {LOWEST_BITS} to {HIGHEST_BITS}.")


def parse_bit_width(text: str) -> BitWidth:
    """Reads `fp` or `4w8a` (4-bit weights, 8-bit activations).

    Args:
        text: the bit-width.

    Raises:
        UserError: on any other form, and on bits outside 2 to 16.
    """
    text = text.strip()
    if text == "fp":
        return FLOAT
    match = re.fullmatch(r"(\d+)w(\d+)a", text)
    nearest = "8w8a"
    numbers = re.findall(r"\d+", text)
    if match is None and len(numbers) == 2:
        first, second = (_nearest_bits(number) for number in numbers)
        turned = -1 < text.find("a") < text.find("w")
        nearest = f"{second}w{first}a" if turned else f"{first}w{second}a"
    if match:
        weights, activations = (_nearest_bits(group) for group in match.groups())
        nearest = f"{weights}w{activations}a"
        if nearest == text:
            return BitWidth(weights, activations)
    raise UserError(
        f"Unknown bit-width {text!r}; allowed: 'fp', or NwMa with N and M from {LOWEST_BITS} to "
        f"{HIGHEST_BITS}. Did you mean {nearest!r}?"
    )


def parse_bit_widths(text: str) -> tuple[BitWidth, ...]:
    """Reads a comma-separated list such as `fp,8w8a,2-4w4a`, in the order given.

    A range stands for each of its bits, `2-4w4a` for `2w4a,3w4a,4w4a`; of two ranges, that of the
    activations runs faster.

    Args:
        text: the list.

    Raises:
        UserError: on an unknown entry, an empty list or an entry that stands twice.
    """
    entries = [entry for part in text.split(",") if part.strip() for entry in _expanded(part)]
    parsed = tuple(parse_bit_width(entry) for entry in entries)
    if not parsed:
        raise UserError(f"No bit-width in {text!r}; allowed: a list such as 'fp,8w8a,4w4a'.")
    for bits in parsed:
        if parsed.count(bits) > 1:
            raise UserError(f"Bit-width '{bits}' stands twice in {text!r}; name it once.")
    return parsed


def _expanded(entry: str) -> list[str]:
    """Returns the bit-widths that an entry with ranges stands for, or else the entry itself."""
    number = r"(\d+(?:-\d+)?)"
    match = re.fullmatch(rf"{number}w{number}a", entry.strip())
    if not match or "-" not in entry:
        return [entry]
    weights, activations = (parse_bit_choices(group) for group in match.groups())
    return [f"{w}w{a}a" for w in weights for a in activations]


def parse_bit_choices(text: str) -> tuple[int, ...]:
    """Reads the candidate bits of a draw: `2-8` (every one of 2..8), `4` or `2,4,8`.

    Args:
        text: the range, number or list.

    Returns:
        The candidates in ascending order for a range, else in the order given.

    Raises:
        UserError: on any other form, a descending range, and bits outside 2 to 16.
    """
    text = str(text).strip()
    if not re.fullmatch(r"\d+-\d+|\d+(,\d+)*", text):
        raise UserError(
            f"Unknown bits {text!r}; allowed: a range '2-8', a number '4' or a list '2,4,8'."
        )
    given = re.split("[-,]", text)
    choices = tuple(_nearest_bits(digits) for digits in given)
    for digits, bits in zip(given, choices, strict=True):
        if digits.lstrip("0") != str(bits):
            raise UserError(
                f"Bits {digits} in {text!r} cannot be used; allowed: {LOWEST_BITS} to "
                f"{HIGHEST_BITS}. The nearest is {bits}."
            )
    if "-" not in text:
        return choices
    low, high = choices
    if low > high:
        raise UserError(f"Bits {text!r} descend; did you mean '{high}-{low}'?")
    return tuple(range(low, high + 1))
