"""Fields of settings: a default, a help text, choices and bounds; and the one checker of them."""

import dataclasses
import math
import types
import typing
from typing import Any

from tfcq.errors import UserError, unknown_choice

Number = int | float


def setting(
    default: Any,
    text: str,
    choices: tuple[str, ...] | None = None,
    *,
    at_least: Number | None = None,
    at_most: Number | None = None,
    above: Number | None = None,
    below: Number | None = None,
    why: str = "",
) -> Any:
    """Returns a field of a settings dataclass.

    Args:
        default: its value when absent.
        text: what it does, for the help.
        choices: allowed values; None for any.
        at_least: the least allowed number; None for any.
        at_most: the greatest allowed number; None for any.
        above: a number that is just too small; None for none.
        below: a number that is just too great; None for none.
        why: reason of a bound, for the message.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    metadata = {"help": text, "choices": choices, "bounds": bounds, "why": why}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(settings: Any) -> None:
    """Refuses a value of another type, outside its choices, or outside its bounds.

    Args:
        settings: an instance of a settings dataclass.

    Raises:
        UserError: naming the first such setting and what it allows.
    """
    kinds = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, choices = getattr(settings, field.name), field.metadata["choices"]
        _check_type(field.name, value, kinds[field.name])
        if value is None:
            continue
        if choices and value not in choices:
            raise unknown_choice(field.name, value, choices)
        _check_number(field, value)


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Refuses a value of another type."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    fits = (type(value) in kinds) or (float in kinds and type(value) is int)
    if not fits:
        allowed = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--{name}={value!r} cannot be used; allowed: a finite {allowed}.")


def _check_number(field: dataclasses.Field, value: Any) -> None:
    """Refuses a number outside the bounds of its field, and one that is not finite."""
    bounds, why = field.metadata["bounds"], field.metadata["why"]
    bounded = any(bound is not None for bound in bounds.values())
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (not bounded or _within(value, **bounds)):
        return
    allowed = _in_words(**bounds) if bounded else "a finite float"
    if bounded and not finite:
        allowed += ", finite"
    raise UserError(
        f"--{field.name}={value} cannot be used; allowed: {allowed}{', ' + why if why else ''}."
    )


def _within(
    value: Number,
    at_least: Number | None,
    at_most: Number | None,
    above: Number | None,
    below: Number | None,
) -> bool:
    return (
        (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _in_words(
    at_least: Number | None, at_most: Number | None, above: Number | None, below: Number | None
) -> str:
    least = f"above {above}" if at_least is None else f"{at_least}"
    most = f"below {below}" if at_most is None else f"{at_most}"
    if at_most is None and below is None:
        return least if at_least is None else f"{least} and above"
    return f"{least} to {most}"


def flat(tree: Any) -> dict[str, Any]:
    """Returns every setting of a tree by its name, which no two groups share.

    Args:
        tree: a dataclass of groups of settings.
    """
    return {
        name: value for group in dataclasses.asdict(tree).values() for name, value in group.items()
    }


def grouped(tree: type, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the groups of a tree from values by setting name.

    Args:
        tree: a dataclass of groups of settings, each with a default.
        values: value of each setting; those absent keep their default.

    Raises:
        UserError: on an unknown setting.
    """
    remaining, groups, known = dict(values), {}, []
    for group in dataclasses.fields(tree):
        kind: Any = type(group.default)
        names = {field.name for field in dataclasses.fields(kind)}
        known += sorted(names)
        groups[group.name] = kind(**{n: remaining.pop(n) for n in names & set(remaining)})
    if remaining:
        raise unknown_choice("setting", next(iter(remaining)), known)
    return groups


def differences(old: Any, new: Any) -> list[str]:
    """Returns one text `name: old -> new` for every setting that differs.

    Args:
        old: a tree of settings.
        new: another of the same type.
    """
    before, after = flat(old), flat(new)
    return [f"{n}: {before[n]} -> {after[n]}" for n in before if before[n] != after[n]]


def share_range(name: str, text: str | None) -> tuple[float, float] | None:
    """Reads a range of shares such as `0.2-1`.

    Args:
        name: name of the setting.
        text: the range, or None.

    Raises:
        UserError: on another form, or shares outside 0 to 1.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        low = high = -1.0
    if not 0 < low <= high <= 1:
        raise UserError(f"--{name}={text}; allowed: LOW-HIGH within 0 to 1, such as 0.2-1.")
    return low, high
