"""Accuracy over bit-widths, runs and seeds: tables, picture and the evaluations behind them."""

import json
import math
from collections.abc import Sequence
from typing import Any

from tfcq.evaluation.records import column_of
from tfcq.reporting.curves import Curve, draw_curves
from tfcq.reporting.measured import ALWAYS_AMONG_FIVE
from tfcq.reporting.page import Block, Heading, Items, Picture, Table, Text
from tfcq.reporting.plots import draw_accuracy
from tfcq.reporting.summary import (
    Comparison,
    Statistic,
    condition_differences,
    flatten,
)
from tfcq.reporting.tables import percent

ABSENT = "–"
_OVER = {"bits": "bit-widths", "kernels": "kernels"}
# Half a point: below that, a second table would only repeat the first.
_NOTED = 0.005
_FIGURES = {"top1": "top-1 %", "top5": "top-5 %", "mean_per_class": "mean per class %"}


def cell(statistic: Statistic | None, expected: int) -> str:
    """Returns mean and spread in percent, with the number of runs where some have no figure.

    Args:
        statistic: shares of 1 over runs, or None.
        expected: number of runs in the row.
    """
    if statistic is None:
        return ABSENT
    spread = "" if math.isnan(statistic.spread) else f" ± {percent(statistic.spread)}"
    fewer = "" if statistic.count == expected else f" ({statistic.count} of {expected})"
    return percent(statistic.mean) + spread + fewer


def difference_cell(statistic: Statistic | None, reference: Statistic | None) -> str:
    """Returns a difference of means in points, with its standard error where it is known.

    Args:
        statistic: shares of 1 over runs, or None.
        reference: what is subtracted, or None.
    """
    if statistic is None or reference is None:
        return ABSENT
    difference, error = statistic.minus(reference)
    return f"{100 * difference:+.1f}" + ("" if math.isnan(error) else f" ± {percent(error)}")


def accuracy_blocks(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Block]:
    """Returns the tables and the picture of every set of comparable evaluations.

    Args:
        comparisons: the sets.
        names: name of every group; the first is what others are compared to.
    """
    blocks: list[Block] = []
    reference: dict[str, Comparison] = {}
    for number, comparison in enumerate(comparisons, start=1):
        first = reference.setdefault(comparison.protocol, comparison)
        blocks.append(Heading(title(comparison, comparisons)))
        if first is not comparison:
            differences = condition_differences(first.conditions, comparison.conditions)
            blocks.append(
                Text(
                    "Evaluated otherwise than the first table of this protocol "
                    f"({_first_of(differences)}), so neither averaged with it nor compared to it."
                )
            )
        blocks += _tables(comparison, names[0])
        blocks.append(_picture(comparison, number, names))
    return blocks


def _first_of(texts: Sequence[str], most: int = 6) -> str:
    more = f"; and {len(texts) - most} more, see the details" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def title(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Returns the heading of a set of evaluations, numbered where a protocol has several.

    Args:
        comparison: the set.
        comparisons: all sets.
    """
    alike = [other for other in comparisons if other.protocol == comparison.protocol]
    number = f" ({alike.index(comparison) + 1} of {len(alike)})" if len(alike) > 1 else ""
    about = comparison.conditions
    images = f", {about['test_images']} test images" if "test_images" in about else ""
    return f"{comparison.protocol}{number}: {about.get('dataset', 'unknown data')}{images}"


def _tables(comparison: Comparison, first_name: str) -> list[Block]:
    blocks = _tables_of("top1", "Top-1 accuracy", comparison, first_name)
    entries = [e for pairs in comparison.records for _, record in pairs for e in record["results"]]
    if any(abs(e.get("mean_per_class", e["top1"]) - e["top1"]) > _NOTED for e in entries):
        # Test classes of unequal size, whose data sets are customarily reported this way.
        caption = "Accuracy as the mean over classes"
        blocks += _tables_of("mean_per_class", caption, comparison, first_name)
    return blocks + [Text(note) for note in _notes(comparison)]


def _tables_of(figure: str, caption: str, comparison: Comparison, first_name: str) -> list[Block]:
    groups, bits = comparison.groups, comparison.bits
    counts = [len(pairs) for pairs in comparison.records]
    statistics = [[comparison.statistic(i, b, figure) for b in bits] for i in range(len(groups))]
    several = any(count > 1 for count in counts)
    caption += " in percent" + (", mean ± sample standard deviation over runs" if several else "")
    rows = [
        (f"{group.name} ({count} run{'s' if count > 1 else ''})", *(cell(s, count) for s in row))
        for group, count, row in zip(groups, counts, statistics, strict=True)
    ]
    blocks: list[Block] = [Table((comparison.heading, *bits), rows, f"{caption}.")]
    if len(groups) > 1:
        against = groups[0].name
        why = "" if against == first_name else f" ({first_name} has no such evaluation)"
        errors = ", ± standard error of the difference" if several else ""
        rows = [
            (group.name, *map(difference_cell, row, statistics[0]))
            for group, row in zip(groups[1:], statistics[1:], strict=True)
        ]
        blocks.append(
            Table(
                (comparison.heading, *bits),
                rows,
                f"Difference to {against}{why} in points{errors}.",
            )
        )
    return blocks


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    records = [record for pairs in comparison.records for _, record in pairs]
    versions = {json.dumps(record.get("versions"), sort_keys=True) for record in records}
    if len(versions) > 1:
        notes.append("Measured with different versions of the libraries; see the details.")
    if comparison.left_out:
        notes.append(
            f"{comparison.left_out} earlier evaluation(s) that differ in seed or versions alone "
            "are not shown; each run counts with its newest."
        )
    return notes


def _picture(comparison: Comparison, number: int, names: Sequence[str]) -> Picture:
    def shares(figure: str) -> dict[str, list[float]]:
        return {
            group.name: [
                getattr(s, figure) if (s := comparison.statistic(i, b)) else math.nan
                for b in comparison.bits
            ]
            for i, group in enumerate(comparison.groups)
        }

    means, spreads = shares("mean"), shares("spread")
    first, last = comparison.bits[0], comparison.bits[-1]
    ends = "; ".join(
        f"{name}: {percent(values[0])} at {first}"
        + (f", {percent(values[-1])} at {last}" if last != first else "")
        for name, values in means.items()
    )
    return Picture(
        f"accuracy_{number}_{comparison.protocol}",
        draw_accuracy(
            comparison.bits, means, spreads, comparison.protocol, names, comparison.heading
        ),
        f"Top-1 accuracy in percent over {_OVER[comparison.heading]} under the protocol "
        f"{comparison.protocol}. {ends}.",
    )


def learning_curve_blocks(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Block]:
    """Returns a picture of the learning curves of every set of evaluations that trained.

    Args:
        comparisons: the sets.
        names: name of every group.
    """
    blocks: list[Block] = []
    for number, comparison in enumerate(comparisons, start=1):
        panels: dict[str, list[Curve]] = {}
        for group, pairs in zip(comparison.groups, comparison.records, strict=True):
            for _, record in pairs:
                for entry in record["results"]:
                    if points := [p for p in entry.get("curve") or [] if "top1" in p]:
                        epochs = [point["epoch"] for point in points]
                        top1 = [100 * point["top1"] for point in points]
                        panels.setdefault(column_of(entry), []).append(
                            Curve(group.name, epochs, top1)
                        )
        if panels:
            blocks.append(Heading(title(comparison, comparisons)))
            blocks.append(
                Picture(
                    f"learning_curve_{number}_{comparison.protocol}",
                    draw_curves(panels, "top-1 accuracy (%)", names),
                    f"Test accuracy over epochs of the protocol {comparison.protocol}, a panel "
                    f"for each bit-width: {', '.join(panels)}.",
                    "One line for each run; runs that differ in their seed share a colour.",
                )
            )
    return blocks


def detail_blocks(comparisons: Sequence[Comparison]) -> list[Block]:
    """Returns every figure of every run, and what it was evaluated with.

    Args:
        comparisons: the sets of comparable evaluations.
    """
    blocks: list[Block] = []
    for comparison in comparisons:
        blocks.append(Heading(title(comparison, comparisons)))
        pairs = [pair for group in comparison.records for pair in group]
        rows = [
            (run.path, name, *values)
            for run, record in pairs
            for name, values in _figures(record, comparison.bits).items()
        ]
        blocks.append(Table(("run", "figure", *comparison.bits), rows))
        own = [
            f"{run.path}: " + ", ".join(f"{k} {v}" for k, v in _own(record).items())
            for run, record in pairs
        ]
        blocks.append(Items(own))
        rows = [(name, _plain(value)) for name, value in comparison.conditions.items()]
        blocks.append(Table(("evaluated with", "value"), rows, words=True))
    return blocks


def _own(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what may differ between comparable evaluations."""
    names = ("seed", "start_file", "start_weights", "versions")
    return flatten({name: record[name] for name in names if name in record})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _figures(record: dict[str, Any], bits: Sequence[str]) -> dict[str, list[str]]:
    """Returns title of each figure to its cells; those this file does not know, by their names."""
    entries = {column_of(entry): entry for entry in record["results"]}
    names = dict.fromkeys(name for entry in entries.values() for name in entry)
    found = {}
    for name in names:
        if name in ("bits", "kernels", "curve"):
            continue
        if name == "top5" and record.get("classes", ALWAYS_AMONG_FIVE + 1) <= ALWAYS_AMONG_FIVE:
            continue
        values = [entries.get(b, {}).get(name) for b in bits]
        write = percent if name in _FIGURES else _plain
        found[_FIGURES.get(name, name)] = [ABSENT if v is None else write(v) for v in values]
    return found
