"""When a run is saved, as text: `1epochs`, `500steps`, `10min`."""

import dataclasses
import difflib
import re

from tfcq.errors import UserError

UNITS = ("epochs", "steps", "min")
# What may be given at every start of a run: it does not change what is trained.
OF_A_START = ("save_every", "keep", "steps_per_execution", "tpu")


@dataclasses.dataclass(frozen=True)
class SaveEvery:
    """How often a run is saved, beside its end.

    Args:
        amount: how many, from 1.
        unit: `"epochs"`, `"steps"` or `"min"` (minutes).
    """

    amount: int = 1
    unit: str = "epochs"

    def is_due(self, done: int, steps: int, seconds: float) -> bool:
        """Returns whether a run is to be saved now.

        Args:
            done: steps of the run that are done.
            steps: steps of an epoch.
            seconds: since it was saved.
        """
        if self.unit == "min":
            return seconds >= 60 * self.amount
        return done % (self.amount * (steps if self.unit == "epochs" else 1)) == 0


def check_steps_per_execution(together: int, steps: int, save_every: SaveEvery) -> None:
    """Refuses calls of several steps that would go beyond an epoch, or a step that is saved.

    Args:
        together: steps in one call.
        steps: steps of an epoch.
        save_every: when the run is saved.

    Raises:
        UserError: when they do.
    """
    given = f"--steps_per_execution={together}"
    if steps % together:
        divisors = [number for number in range(1, steps + 1) if steps % number == 0]
        nearest = min(divisors, key=lambda number: abs(number - together))
        raise UserError(
            f"{given} does not divide the {steps} steps of an epoch; allowed: one that does. "
            f"Did you mean {nearest}?"
        )
    if save_every.unit == "steps" and save_every.amount % together:
        nearest = max(1, round(save_every.amount / together)) * together
        raise UserError(
            f"--save_every={save_every.amount}steps is no multiple of {given}, between whose steps "
            f"nothing is saved. Did you mean --save_every={nearest}steps?"
        )


def parse_save_every(text: str) -> SaveEvery:
    """Reads `1epochs`, `500steps` or `10min`; units may be singular.

    Args:
        text: the text.

    Raises:
        UserError: on any other form, naming the nearest valid one.
    """
    found = re.fullmatch(r"([1-9]\d{0,14})\s*(epochs?|steps?|min)", text, re.ASCII)
    if found is not None:
        unit = found[2] if found[2] in UNITS else f"{found[2]}s"
        return SaveEvery(int(found[1]), unit)
    amount = re.search(r"[1-9]\d{0,14}", text, re.ASCII)
    rest = re.sub(r"[\d\s.,]", "", text).lower()[:20]
    begun = [unit for unit in UNITS if rest and unit.startswith(rest)]
    unit = (begun or difflib.get_close_matches(rest, UNITS, n=1, cutoff=0.3) or ["steps"])[0]
    raise UserError(
        f"--save_every={text} cannot be used; allowed: a whole number of epochs, steps or minutes, "
        f"such as 1epochs, 500steps or 10min. Did you mean {amount[0] if amount else 1}{unit}?"
    )
