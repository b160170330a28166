"""Errors that a user can mend, each worded in one line."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A request that cannot be met: what was received, what is allowed, the nearest valid choice.

    Command lines print its text alone and exit with code 2.
    """


class TrainingStopped(RuntimeError):
    """Training cannot usefully go on (NaN or collapsed features); the text explains why."""


def unknown_choice(what: str, received: str, allowed: Iterable[str]) -> UserError:
    """Returns the error for a name outside a closed set.

    Args:
        what: what is being named, for example `"recipe"`.
        received: the name that was given.
        allowed: every valid name.
    """
    choices = sorted(allowed)
    # Capitals say little of what is near.
    by_lower = {choice.lower(): choice for choice in choices}
    # Of a text without end its beginning says enough.
    near = difflib.get_close_matches(received[:100].lower(), by_lower, n=1, cutoff=0.4)
    hint = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return UserError(f"Unknown {what} {received!r}; allowed: {', '.join(choices)}.{hint}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuses a number that is too small.

    Args:
        name: of the argument.
        value: what was given.
        least: what is allowed.

    Raises:
        UserError: when it is less.
    """
    if value < least:
        raise UserError(f"{name}={value}; allowed: {least} or more.")
