"""The page of all benchmarks, and the figures that it is written from."""

import json
import pathlib
from typing import Any

from provenance import short

from tfcq.files import read_text, write_text
from tfcq.parsing import check_form, parse_json
from tfcq.reporting.tables import table

HEAD = """# Speed

Seconds are medians of calls that take turns in one process, so that ratios hold on other
machines; every row of a step meets the first in a process of its own. "Its convolutions" are those
of the step alone: forward, gradients of inputs and of kernels, of every convolution and dense
layer, as often as the step makes them and in its dtype. "Passes over its" is the least possible
ratio to the first in one dtype: a pass that is trained counts as three. MB: the peak of a process
that takes three steps, beyond what it held after its imports. The rate of the machine is that of a
3 x 3 convolution of 64 channels, 64 images of 32 x 32, in float32; load is that of the minute
before.
"""


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the records that a file holds; none, if there is no file.

    Args:
        path: the JSON file.

    Raises:
        UserError: when it holds something else.
    """
    if not path.exists():
        return []
    found = parse_json(read_text(path), str(path))
    texts = dict.fromkeys(("command", "about", "commit", "machine"), str)
    check_form(found, [texts | {"rate": {"*": float}, "figures": [{}]}], str(path))
    return found


def added(records: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns records with a further one, in the place of an earlier one of the same command.

    Args:
        records: the earlier ones.
        record: what is added.
    """
    kept = [one for one in records if one["command"] != record["command"]]
    return sorted([*kept, record], key=lambda one: one["command"])


def write(output: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Writes records as JSON and as the page.

    Args:
        output: the files without their suffix.
        records: what they hold.
    """
    write_text(output.with_suffix(".json"), json.dumps(records, indent=2) + "\n")
    write_text(output.with_suffix(".md"), "\n".join([HEAD, *map(section, records)]))


def section(record: dict[str, Any]) -> str:
    """Returns a record as a section of the page."""
    rate = ", ".join(f"{value:.0f} {unit}" for unit, value in record["rate"].items())
    return (
        f"## {record['about']}\n\n{rows(record['figures'])}\n\n- Command: `{record['command']}`\n"
        f"- Commit: {short(record['commit'])}; {record['machine']}; {rate} of a convolution\n"
    )


def rows(figures: list[dict[str, Any]]) -> str:
    """Returns rows as a Markdown table; what a row lacks is left empty.

    Args:
        figures: a value by column of each row.
    """
    columns = list(dict.fromkeys(name for row in figures for name in row))
    return table(columns, [[_cell(row.get(name, "")) for name in columns] for row in figures])


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    decimals = next((n for n, limit in enumerate((100, 10, 1)) if value >= limit), 3)
    return f"{value:.{decimals}f}"
