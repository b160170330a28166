"""Runs that are trained alike but for their seed, and what their evaluations have in common.

Evaluations count as comparable when they differ in nothing but results, seed and versions; others
are neither averaged nor compared.
"""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from tfcq.evaluation.records import column_of, settings_of
from tfcq.reporting.run_record import RunRecord
from tfcq.settings.saving import OF_A_START

SEED = "seed"
# Settings of which runs of a group may differ: neither where images are kept nor who is told the
# figures decides what is trained.
_OF_A_RUN = (SEED, *OF_A_START, "data_dir", "download", "tracker")
# Which differ between comparable evaluations of several runs, but not within one.
_WEIGHTS = ("weights", "start_weights")
# Which differ too, the run itself above all; all other entries of a record decide its figures.
_OWN = ("subject", "start_file", *_WEIGHTS)
_FREE = ("results", "earlier", SEED, "versions", *_OWN)
_LONGEST_NAME = 60


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that are trained alike but for their seed.

    Args:
        name: what tells the group from the others.
        runs: the runs, in the order given.
    """

    name: str
    runs: tuple[RunRecord, ...]


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A figure over several runs.

    Args:
        mean: mean.
        spread: sample standard deviation; NaN for fewer than two runs.
        count: number of runs.
    """

    mean: float
    spread: float
    count: int

    def minus(self, other: "Statistic") -> tuple[float, float]:
        """Returns the difference of two means and its standard error, NaN where unknown.

        Args:
            other: what is subtracted.
        """
        error = math.sqrt(self.spread**2 / self.count + other.spread**2 / other.count)
        return self.mean - other.mean, error


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparable evaluations of several groups.

    Args:
        protocol: name of the evaluation files, such as `linear` or `qat_lsq`.
        conditions: what all of them were evaluated with.
        bits: bit-widths, or of TFLite files the kernels, in the order evaluated.
        groups: the groups that have such an evaluation.
        records: for each group, the runs that have one, with it.
        left_out: evaluations of a run that differ from its shown one in seed or versions alone.
    """

    protocol: str
    conditions: dict[str, Any]
    bits: tuple[str, ...]
    groups: tuple[Group, ...]
    records: tuple[tuple[tuple[RunRecord, dict[str, Any]], ...], ...]
    left_out: int

    @property
    def heading(self) -> str:
        """What stands over the names of the columns."""
        entries = [entry for pairs in self.records for _, one in pairs for entry in one["results"]]
        return "kernels" if any("kernels" in entry for entry in entries) else "bits"

    def values(self, group: int, bits: str, figure: str = "top1") -> list[float]:
        """Returns a figure of every run of a group at a bit-width, where evaluated.

        Args:
            group: index of the group.
            bits: the bit-width.
            figure: name of the figure.
        """
        return [
            float(entry[figure])
            for _, record in self.records[group]
            for entry in record["results"]
            if column_of(entry) == bits and figure in entry
        ]

    def statistic(self, group: int, bits: str, figure: str = "top1") -> Statistic | None:
        """Returns a figure over the runs of a group at a bit-width; None where none has it.

        Args:
            group: index of the group.
            bits: the bit-width.
            figure: name of the figure.
        """
        return summarize(self.values(group, bits, figure))


def summarize(values: Sequence[float]) -> Statistic | None:
    """Returns mean and sample standard deviation; None for no value.

    Args:
        values: the values.
    """
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Statistic(statistics.fmean(values), spread, len(values))


def group_runs(runs: Sequence[RunRecord]) -> tuple[Group, ...]:
    """Returns the runs in groups that are trained alike but for their seed, in the order given.

    Args:
        runs: the runs.
    """
    grouped: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = {name: value for name, value in run.settings.items() if name not in _OF_A_RUN}
        grouped.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    members = list(grouped.values())
    names = _names([group[0] for group in members])
    return tuple(Group(name, tuple(group)) for name, group in zip(names, members, strict=True))


def _names(runs: Sequence[RunRecord]) -> list[str]:
    """Returns a short name of each run, by the settings in which they differ."""
    names = [_name(run.settings, ()) for run in runs]
    result = []
    for run, name in zip(runs, names, strict=True):
        alike = [other for other, text in zip(runs, names, strict=True) if text == name]
        differing = [
            setting
            for setting, value in run.settings.items()
            if setting not in _OF_A_RUN
            and any(other.settings.get(setting) != value for other in alike)
        ]
        longer = _name(run.settings, differing)
        result.append(longer if len(longer) <= _LONGEST_NAME else run.path)
    return result


def _name(settings: dict[str, Any], further: Sequence[str]) -> str:
    parts = [str(settings.get(setting)) for setting in ("framework", "recipe")]
    return ", ".join([*parts, *(f"{name}={settings[name]}" for name in further)])


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Returns every set of comparable evaluations, by protocol.

    Args:
        groups: the groups; the first is what others are compared to.
    """
    stems = dict.fromkeys(
        stem for group in groups for run in group.runs for stem in sorted(run.evaluations)
    )
    return [comparison for stem in stems for comparison in _comparisons(stem, groups)]


def _comparisons(stem: str, groups: Sequence[Group]) -> list[Comparison]:
    found: dict[str, dict[int, list[tuple[RunRecord, dict[str, Any]]]]] = {}
    told: dict[str, dict[str, Any]] = {}
    left_out: dict[str, int] = {}
    for index, group in enumerate(groups):
        for run in group.runs:
            own: dict[str, dict[str, Any]] = {}
            for record in run.evaluations.get(stem, []):
                beside = _scored(run, record)
                weights = {name: record[name] for name in _WEIGHTS if name in record}
                if own.get(_key(record, beside), weights) != weights:
                    beside |= weights
                key = _key(record, beside)
                if key in own:
                    left_out[key] = left_out.get(key, 0) + 1
                    continue
                own[key] = weights
                told.setdefault(key, {**conditions(record), **beside})
                found.setdefault(key, {}).setdefault(index, []).append((run, record))
    comparisons = []
    for key, members in found.items():
        records = [record for pairs in members.values() for _, record in pairs]
        bits = dict.fromkeys(column_of(entry) for record in records for entry in record["results"])
        comparisons.append(
            Comparison(
                stem,
                told[key],
                tuple(bits),
                tuple(groups[index] for index in members),
                tuple(map(tuple, members.values())),
                left_out.get(key, 0),
            )
        )
    return comparisons


def _key(record: dict[str, Any], beside: dict[str, Any]) -> str:
    """Returns a text that is the same for comparable evaluations, of older versions too."""
    return json.dumps([conditions(settings_of(record)), beside], sort_keys=True)


def _scored(run: RunRecord, record: dict[str, Any]) -> dict[str, str]:
    """Returns what of a run was scored, where that is not its backbone as training left it.

    That is the epoch of a checkpoint, or the name of a file, such as an export of the run.
    """
    own = f"{run.settings['framework']}, {run.settings['recipe']}"
    subject = record.get("subject", own)
    if subject == own:
        return {}
    epoch = subject.removeprefix(f"{own}, ")
    return {"subject": pathlib.PurePath(subject).name if epoch == subject else epoch}


def conditions(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what decides the figures of an evaluation, as `name` or `name.part` to value.

    Args:
        record: the evaluation.
    """
    return flatten({name: value for name, value in record.items() if name not in _FREE})


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries by their dotted names.

    Args:
        tree: the dictionaries.
        prefix: what stands before every name.
    """
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def condition_differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns one text `name: first -> other` for every condition that differs.

    Args:
        first: conditions of one comparison.
        other: conditions of another.
    """
    # As their files are compared: what older records lack is no difference.
    first, other = settings_of(first), settings_of(other)
    names = dict.fromkeys([*first, *other])
    missing = "not recorded"
    return [
        f"{name}: {first.get(name, missing)} -> {other.get(name, missing)}"
        for name in names
        if first.get(name, missing) != other.get(name, missing)
    ]
