"""Durations as text and as steps: `100epochs`, `5000steps`, `1e6examples`."""

import dataclasses
import difflib
import math
import re

from tfcq.errors import UserError, unknown_choice

UNITS = ("epochs", "steps", "examples")
# So that steps can be counted, whatever the unit.
LONGEST = 1e15
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?"


@dataclasses.dataclass(frozen=True)
class Duration:
    """How long something lasts.

    Args:
        amount: how many, from zero to 1e15; a whole number unless of epochs.
        unit: `"epochs"`, `"steps"` or `"examples"` (images; the views of one count once).

    Raises:
        UserError: on an unknown unit or an amount that cannot be used.
    """

    amount: float
    unit: str = "epochs"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown_choice("unit of a duration", self.unit, UNITS)
        if not 0 <= self.amount <= LONGEST:
            raise UserError(f"Duration of {self.amount} {self.unit}; allowed: 0 to {LONGEST:g}.")
        if self.unit != "epochs" and self.amount != int(self.amount):
            nearest = Duration(math.ceil(self.amount), self.unit)
            raise UserError(
                f"Duration of {self.amount} {self.unit}; allowed: whole numbers, or fractions of "
                f"epochs. Did you mean '{nearest}'?"
            )

    def __str__(self) -> str:
        whole = self.amount == int(self.amount)
        amount = str(int(self.amount)) if whole else repr(float(self.amount))
        return amount + (self.unit.removesuffix("s") if self.amount == 1 else self.unit)

    def steps(self, steps_per_epoch: int, batch_size: int, at_least: int = 0) -> int:
        """Returns how many steps this is, rounded to the nearest; halves go to the even number.

            epochs: amount * steps_per_epoch; examples: amount / batch_size

        Args:
            steps_per_epoch: steps that one pass over the images takes.
            batch_size: images per step, over all replicas.
            at_least: how few steps can be used, for example 1 for a whole run.

        Raises:
            UserError: when there are fewer.
        """
        scale = {"epochs": (steps_per_epoch, 1), "steps": (1, 1), "examples": (1, batch_size)}
        numerator, denominator = scale[self.unit]
        steps = round(self.amount * numerator / denominator)
        if steps < at_least:
            raise UserError(
                f"Duration '{self}' is {steps} steps ({steps_per_epoch} an epoch, batches of "
                f"{batch_size}); allowed: {Duration(at_least, 'steps')} and above."
            )
        return steps


def parse_duration(text: str) -> Duration:
    """Reads `100epochs`, `5000steps`, `1e6examples`, or `100`, which means epochs.

    Args:
        text: the duration; units may be singular, and fractions of epochs such as `0.5epochs` are
            allowed.

    Raises:
        UserError: on any other form, naming the nearest valid one.
    """
    text = str(text).strip()
    match = re.fullmatch(rf"({_NUMBER})\s*([a-z]*)", text)
    if match:
        amount, unit = match.groups()
        unit = {"": "epochs", **{name.removesuffix("s"): name for name in UNITS}}.get(unit, unit)
        if unit in UNITS and math.isfinite(float(amount)):
            return Duration(float(amount), unit)
    raise UserError(
        f"Unknown duration {text!r}; allowed: a number and a unit, such as 100epochs (or 100), "
        f"5000steps or 1e6examples. Did you mean '{_nearest(text)}'?"
    )


def _nearest(text: str) -> Duration:
    text = text.replace(",", "").lower()
    match = re.search(_NUMBER, text)
    if match is None or float(match[0]) > LONGEST:
        return Duration(100)
    amount = float(match[0])
    rest = text.replace(match[0], "", 1).strip(" -+")
    # An abbreviation such as `ep` is nearer to what it begins than to what shares its letters.
    begun = [unit for unit in UNITS if unit.startswith(rest)]
    unit = (begun or difflib.get_close_matches(rest, UNITS, n=1, cutoff=0.2) or UNITS)[0]
    return Duration(amount if unit == "epochs" else math.ceil(amount), unit)
