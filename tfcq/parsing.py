"""JSON and CSV that are checked to be what their readers take them for."""

import csv
import hashlib
import json
import os
from typing import Any

from tfcq.errors import UserError
from tfcq.files import read_text

# Deeper than any file of ours; what is deeper still would exhaust the interpreter's stack.
_DEEPEST = 100
_CHECKSUM = "checksum"
# Beyond any count or figure of ours.
_GREATEST = 1e18


def parse_json(text: str, what: str) -> Any:
    """Returns what a JSON text holds.

    Args:
        text: the text.
        what: what it is, for the message.

    Raises:
        UserError: when it is no JSON, or nested deeper than 100.
    """
    deep = f"{what} is nested too deeply; allowed: up to {_DEEPEST} levels."
    try:
        found = json.loads(text)
    except RecursionError:
        raise UserError(deep) from None
    except ValueError as error:
        raise UserError(f"{what} is not JSON: {error}.") from None
    level = [found]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in _children(node)]
    if level:
        raise UserError(deep)
    return found


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON object behind the checksum of what it holds, see `check_seal`.

    Args:
        tree: the object.
    """
    return {_CHECKSUM: _checksum(tree), **tree}


def check_seal(tree: dict[str, Any], what: str) -> dict[str, Any]:
    """Returns what a JSON object holds; one without a checksum, as of before, is taken as it is.

    Args:
        tree: the object.
        what: what it is, for the message.

    Raises:
        UserError: when it holds something else than what `sealed` was given.
    """
    held = {name: value for name, value in tree.items() if name != _CHECKSUM}
    if len(held) < len(tree) and tree[_CHECKSUM] != _checksum(held):
        raise UserError(
            f"{what} is damaged: it is not what was written, as its {_CHECKSUM!r} tells; put it "
            "back, or take that line out if it was changed on purpose."
        )
    return held


def _checksum(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def check_form(found: Any, form: Any, place: str) -> None:
    """Refuses JSON that holds something else than its readers take.

    Args:
        found: what a file holds.
        form: a type, where `float` stands for every finite number; a list with the form of every
            member; or a dictionary of forms, where names may be absent and `"*"` stands for all.
        place: what `found` is, for the message.

    Raises:
        UserError: naming the first place that does not fit.
    """
    kind = form if isinstance(form, type) else type(form)
    number = type(found) in (int, float) and abs(found) < _GREATEST
    if not (number if kind is float else isinstance(found, kind)):
        allowed = {dict: "an object", list: "a list", str: "text", float: "a number"}[kind]
        raise UserError(f"{place} is {str(found)[:60]!r}; allowed: {allowed}.")
    if isinstance(form, list):
        for number, member in enumerate(found, 1):
            check_form(member, form[0], f"{place}, {number}")
    elif isinstance(form, dict):
        for name, member in found.items():
            if name in form or "*" in form:
                check_form(member, form.get(name, form.get("*")), f"{place}, {name!r}")


def read_rows(path: str | os.PathLike) -> list[dict[str, str]]:
    """Returns the rows of a CSV file by the names in its first line.

    Args:
        path: the file.

    Raises:
        UserError: when it cannot be read as CSV, or a row has more or fewer values than names.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}.") from None
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise UserError(f"Row {number} of {path} has more or fewer values than the first line.")
    return rows
