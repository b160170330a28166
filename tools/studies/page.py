"""The page of a study: tables of means, spreads, paired differences and the paper's figures."""

import pathlib
import statistics
from collections.abc import Iterable, Sequence

from provenance import short
from studies.figures import (
    NONE,
    Record,
    columns_of,
    interval,
    over_training,
    records_of,
    spread,
    values,
)
from studies.pictures import draw_pictures
from studies.study import Row, Scoring, Study

from tfcq.files import write_text
from tfcq.reporting.tables import percent, table

WEIGHTS = {
    "kurtosis": ("kurtosis", 1),
    "largest": ("largest / deviation", 1),
    "outliers": ("beyond 3 deviations, %", 100),
}


def write_page(
    out: pathlib.Path, study: Study, records: Sequence[Record], failed: dict[str, str]
) -> None:
    """Writes Markdown and pictures of what there is so far; nothing, if there is nothing.

    Args:
        out: path of the files without their suffix.
        study: the study.
        records: of each row and seed.
        failed: name of a row to what its command said.
    """
    if not records and not failed:
        return
    blocks = [f"# {study.title}", study.claim, _about_seeds(study, records)]
    for name, scoring in study.protocols.items():
        blocks += scores(study, name, scoring, records)
    blocks += draw_pictures(out, study, records)
    blocks += _followed(study, records) + _weights(study, records) + _errors(study, records)
    blocks += [*_ends(study, records, failed), _footer(study, records)]
    write_text(out.with_suffix(".md"), "\n\n".join(blocks) + "\n")


def _about_seeds(study: Study, records: Sequence[Record]) -> str:
    runs = sum(len(records_of(row, records)) for row in study.rows)
    return (
        "Top-1 accuracy in percent: mean and sample standard deviation of as many seeds as stand "
        f"in brackets behind a row. {runs} of {len(study.rows) * len(study.seeds)} runs have "
        "ended. A difference is paired by seed; in brackets its 95% interval by Student's t. "
        "Bit-widths: weights, activations; `fp` is float."
    )


def scores(study: Study, name: str, scoring: Scoring, records: Sequence[Record]) -> list[str]:
    """Returns the tables of a protocol: ours, differences, the paper's.

    Args:
        study: the study.
        name: of the protocol.
        scoring: the protocol.
        records: of each row and seed.
    """
    columns, ours = columns_of(study, scoring), []
    for row in study.rows:
        by_bits = [list(values(row, records, name, bits).values()) for bits in columns]
        count = max(map(len, by_bits))
        ours.append((f"{row.name} ({count})", *map(spread, by_bits)))
    blocks = [f"## {name}", table((name, *columns), ours)]
    differences = [
        line for row in study.rows for line in _differences(study, row, name, columns, records)
    ]
    if differences:
        blocks.append(table(("difference", *columns), differences))
    if paper := _papers(study, name, columns):
        blocks.append(table(("the paper's", *columns), paper))
    return blocks


def _papers(study: Study, protocol: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the paper's figures of a protocol, and what its rows are ahead of their baselines."""
    figures = {row.name: row.paper.get(protocol, {}) for row in study.rows}
    rows = [
        (name, *(f"{found[bits]:g}" if bits in found else NONE for bits in columns))
        for name, found in figures.items()
        if found
    ]
    for row in study.rows:
        own, base = figures[row.name], figures.get(row.baseline or "", {})
        if own.keys() & base.keys():
            ahead = {bits: (own[bits] - base[bits]) / 100 for bits in own.keys() & base.keys()}
            rows.append((_title(row), *(_signed(ahead.get(bits)) for bits in columns)))
    return rows


def _title(row: Row) -> str:
    return f"{row.name} - {row.baseline}"


def _differences(
    study: Study, row: Row, protocol: str, columns: Sequence[str], records: Sequence[Record]
) -> list[tuple[str, ...]]:
    """Returns what a row is ahead of its baseline: of each seed, and in the mean."""
    if row.baseline is None:
        return []
    baseline = next(one for one in study.rows if one.name == row.baseline)
    by_bits = []
    for bits in columns:
        one, other = (values(each, records, protocol, bits) for each in (row, baseline))
        by_bits.append({seed: one[seed] - other[seed] for seed in one if seed in other})
    seeds = sorted({seed for found in by_bits for seed in found})
    if not seeds:
        return []
    lines = [
        (f"{_title(row)}, seed {seed}", *(_signed(found.get(seed)) for found in by_bits))
        for seed in seeds
    ]
    if len(seeds) > 1:
        lines.append((f"{_title(row)}, mean", *map(_mean_difference, by_bits)))
    return lines


def _signed(difference: float | None) -> str:
    return NONE if difference is None else f"{100 * difference:+.1f}"


def _mean_difference(found: dict[int, float]) -> str:
    if len(found) < 2:
        return NONE
    mean, half = interval(list(found.values()))
    return f"{_signed(mean)} ({_signed(mean - half)} to {_signed(mean + half)})"


def _followed(study: Study, records: Sequence[Record]) -> list[str]:
    followed, rows = study.followed, []
    if not followed:
        return []
    columns = followed.bits.split(",")
    for row in study.rows:
        found = [over_training(row, records, followed, bits) for bits in columns]
        for epoch in followed.epochs:
            at = [by_epoch[epoch] for by_epoch in found]
            if any(at):
                count = max(map(len, at))
                rows.append((f"{row.name}, epoch {epoch} ({count})", *map(spread, at)))
    about = "Of the seeds that were scored after each of these epochs."
    return ["## Over pre-training", about, table((followed.protocol, *columns), rows)]


def _weights(study: Study, records: Sequence[Record]) -> list[str]:
    rows = []
    for row in study.rows:
        found = [one["weights"] for one in records_of(row, records).values() if "weights" in one]
        cells = (spread([one[k] for one in found], s, 2) for k, (_, s) in WEIGHTS.items())
        if found:
            rows.append((row.name, *cells))
    about = (
        "Means over the layers: kurtosis (3 of a normal distribution), largest weight over "
        "standard deviation, and the share beyond three standard deviations (0.27% of a normal "
        "distribution)."
    )
    heading = ("weights", *(title for title, _ in WEIGHTS.values()))
    return ["## Weights", about, table(heading, rows)]


def _errors(study: Study, records: Sequence[Record]) -> list[str]:
    lines = []
    for row in study.rows:
        for seed, one in records_of(row, records).items():
            if found := one.get("error_correlation"):
                beyond = statistics.mean(abs(value) > 0.1 for value in found)
                lines.append(
                    f"- {row.name}, seed {seed}: {min(found):+.3f} to {max(found):+.3f}, mean "
                    f"{statistics.mean(found):+.3f}; {percent(beyond)}% of the epochs beyond 0.1"
                )
    if not lines:
        return []
    return ["## Correlation of quantization and contrastive errors, by epoch", "\n".join(lines)]


def _ends(study: Study, records: Sequence[Record], failed: dict[str, str]) -> list[str]:
    """Returns what stopped, and what was not done."""
    lines = [
        f"- {one['row']}, seed {one['seed']}, {part}: {line}"
        for one in records
        for part, line in one["stopped"].items()
    ]
    blocks = ["## Stopped", "\n".join(lines)] if lines else []
    if failed:
        blocks += ["## Not done", "\n".join(f"- {name}, {line}" for name, line in failed.items())]
    return blocks


def _footer(study: Study, records: Sequence[Record]) -> str:
    def every(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values))) or NONE

    hours = sum(one["seconds"] for one in records) / 3600
    versions = (f"{k} {v}" for one in records for k, v in one.get("versions", {}).items())
    lines = [
        f"Command: `.venv/bin/python tools/evidence.py tools/studies/{study.name}.toml "
        "--data_dir=DIR`",
        f"Commit: {every(short(c) for one in records for c in one['commits'])}",
        f"Seeds: {', '.join(map(str, study.seeds))}",
        f"Wall time of what is recorded: {hours:.1f} hours",
        f"Machine: {every(one['machine'] for one in records)}",
        f"Versions: {every(versions)}",
        f"All rows: `{' '.join(study.flags.split())}`",
        *(f"{row.name}: `{' '.join(row.flags.split())}`" for row in study.rows),
        *(f"{name}: `{' '.join(s.flags.split())}`" for name, s in study.protocols.items()),
    ]
    return "\n".join(f"- {line}" for line in lines)
