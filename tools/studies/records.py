"""Records of a study: `results/NAME.json`, which several processes may write."""

import json
import pathlib
from typing import Any

from studies.figures import Record
from studies.page import write_page
from studies.study import Row, Study

from tfcq.errors import UserError
from tfcq.files import write_text


def recorded(out: pathlib.Path, study: Study, row: Row, seed: int) -> bool:
    """Whether a row and seed is done, by this process or another.

    Args:
        out: path of the records without its suffix.
        study: the study.
        row: the row.
        seed: the seed.
    """
    records = earlier(out.with_suffix(".json"), study)
    return (row.name, seed) in {(record["row"], record["seed"]) for record in records}


def add(out: pathlib.Path, study: Study, record: Record, failed: dict[str, str]) -> None:
    """Adds a record to those of a study, and writes its page.

    Args:
        out: path of both without suffix.
        study: the study.
        record: what is added.
        failed: the rows that failed, with what was said.

    Raises:
        UserError: when another process has recorded it, from runs elsewhere.
    """
    rows, there = [row.name for row in study.rows], earlier(out.with_suffix(".json"), study)
    if any((one["row"], one["seed"]) == (record["row"], record["seed"]) for one in there):
        raise UserError(
            f"Row {record['row']!r}, seed {record['seed']}, was recorded meanwhile by a process "
            "with other --runs; give all of a study the same."
        )
    records = sorted(
        [*there, record],
        key=lambda one: (one["seed"], rows.index(one["row"])),
    )
    lines = ",\n".join(map(json.dumps, records))
    write_text(out.with_suffix(".json"), f'{{"records": [\n{lines}\n]}}\n')
    write_page(out, study, records, failed)


def earlier(file: pathlib.Path, study: Study) -> list[Record]:
    """Returns the records of a study.

    Args:
        file: of the records.
        study: the study.

    Raises:
        UserError: when one has other settings than the study.
    """
    records = json.loads(file.read_text())["records"] if file.exists() else []
    rows = {row.name: row for row in study.rows}
    for record in records:
        name, seed = record["row"], record["seed"]
        if name not in rows or seed not in study.seeds:
            raise UserError(f"{file} has row {name!r}, seed {seed}, which the study lacks.")
        check_settings(record, study, rows[name], file)
    return records


def check_settings(record: Record, study: Study, row: Row, file: pathlib.Path) -> None:
    """Refuses a record of other settings.

    Args:
        record: the record, or its beginning.
        study: the study.
        row: the row.
        file: where the record stands.

    Raises:
        UserError: naming the row and what differs.
    """
    now, then = _parts(study.settings(row)), _parts(record["settings"])
    for part in {**now, **then}:
        ours, theirs = now.get(part, []), then.get(part, [])
        if ours != theirs:
            lacks = [one for one in theirs if one not in ours]
            more = [one for one in ours if one not in theirs]
            if not more and not lacks:
                more, lacks = ours, theirs
            raise UserError(
                f"Row {row.name!r} has other flags than in {file}, {part}: "
                f"{' '.join(more) or 'none'} in place of {' '.join(lacks) or 'none'}; give the "
                "same flags, or the study another name."
            )


def _parts(settings: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the flags of training and of each scoring, by part."""
    followed = {name: str(value) for name, value in settings.get("followed", {}).items()}
    return {
        "training": settings["training"],
        **settings["scoring"],
        "followed": [f"{name}={value}" for name, value in followed.items()],
    }
