"""Fields of settings: a default, a help text, choices and bounds; and the one checker of them."""

import dataclasses
import difflib
import math
import os
import types
import typing
from typing import Any

from tfcq.errors import UserError, unknown_choice

Number = int | float
# What counters and sizes are held in.
GREATEST_INTEGER = 2**63 - 1
_WORDS = {
    "true": True, "t": True, "1": True, "yes": True, "y": True, "on": True,
    "false": False, "f": False, "0": False, "no": False, "n": False, "off": False,
}  # fmt: skip


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
        if isinstance(value, str):
            check_text(field.name, value)
        if choices and value not in choices:
            raise unknown_choice(field.name, value, choices)
        _check_number(field, value)


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Refuses a value of another type."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    fits = (type(value) in kinds) or (float in kinds and type(value) is int)
    if fits and type(value) is int and not -GREATEST_INTEGER <= value <= GREATEST_INTEGER:
        raise UserError(f"--{name} is beyond {GREATEST_INTEGER:.0e}; allowed: smaller numbers.")
    if not fits:
        allowed = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--{name}={value!r} cannot be used; allowed: a finite {allowed}.")


def check_text(name: str, text: str) -> None:
    """Refuses text that no path, name or file can hold.

    Args:
        name: name of the setting.
        text: the text.

    Raises:
        UserError: on a NUL character, or half of a surrogate pair.
    """
    try:
        os.fsencode(text)
        usable = "\0" not in text
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise UserError(f"--{name}={text!r} holds a character that cannot be used; leave it out.")


def parse_value(name: str, text: str, kind: type) -> Any:
    """Reads the value of a setting from text.

    Args:
        name: name of the setting.
        text: the text.
        kind: bool, int, float or str.

    Raises:
        UserError: on text that stands for no such value, naming what is allowed and the nearest.
    """
    if kind is str:
        check_text(name, text)
        return text
    if kind is bool:
        value = _WORDS.get(text.lower())
    else:
        try:
            value = kind(text)
        except ValueError:
            value = None
    if value is None:
        raise UserError(f"--{name}={text} cannot be used; allowed: {_allowed(text, kind)}")
    return value


def _allowed(text: str, kind: type) -> str:
    """Returns in words which values of a kind there are, and the one that is nearest to a text."""
    if kind is bool:
        near = difflib.get_close_matches(text[:20].lower(), _WORDS, n=1)
        hint = f" Did you mean {str(_WORDS[near[0]]).lower()}?" if near else ""
        return f"true or false.{hint}"
    percent = text.strip().endswith("%")
    plain = text.strip().removesuffix("%")
    try:
        # Of 1,000 the comma parts thousands, of 0,5 it is the point.
        fraction = kind is float and plain.count(",") == 1
        number = float(plain.replace(",", "." if fraction else "")) / (100 if percent else 1)
        nearest = f"{round(number)}" if kind is int else f"{number:.12g}"
        hint = f" The nearest is {nearest}." if math.isfinite(number) else ""
    except (ValueError, OverflowError):
        hint = ""
    return f"a {'whole number, such as 10' if kind is int else 'number, such as 0.5'}.{hint}"


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
