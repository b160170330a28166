"""Which steps of a run are profiled, as text: `20-30`."""

import re
from typing import NamedTuple

from tfcq.errors import UserError

# TensorFlow's profiler keeps every operation of a step in memory.
MOST_STEPS = 100


class ProfiledSteps(NamedTuple):
    """Steps of a run, counted from 1.

    Args:
        first: the first one.
        last: the last one.
    """

    first: int
    last: int


def parse_profile(text: str) -> ProfiledSteps:
    """Reads `20-30`, or `20` for one step.

    Args:
        text: the text.

    Raises:
        UserError: on any other form, or more than 100 steps.
    """
    found = re.fullmatch(r"([1-9]\d{0,14})(?:-([1-9]\d{0,14}))?", text, re.ASCII)
    if found is None:
        raise UserError(
            f"--profile={text} cannot be used; allowed: steps of the run, counted from 1, such as "
            "20-30."
        )
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < first + MOST_STEPS:
        nearest = f"{first}-{first + MOST_STEPS - 1}" if last > first else f"{last}-{first}"
        raise UserError(
            f"--profile={text} cannot be used; allowed: 1 to {MOST_STEPS} steps, the first one in "
            f"front. Did you mean {nearest}?"
        )
    return ProfiledSteps(first, last)
