"""What a run's folder holds, read without TensorFlow: evaluations, history, export, weights."""

import dataclasses
import math
import pathlib
from typing import Any

from tfcq.errors import UserError
from tfcq.evaluation.records import read_records
from tfcq.files import read_text
from tfcq.parsing import check_form, parse_json, read_rows
from tfcq.reporting.detection_record import DetectionRecord, read_detections

# What is read of an export's figures.
_EXPORT = {
    "agreement": float,
    **dict.fromkeys(("top1", "bytes", "milliseconds_per_image"), {"*": float}),
    "versions": {"*": str},
}


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run, as a report sees it.

    Args:
        path: folder of the run, as it was given.
        settings: value of every setting.
        changed: value of the settings that differ from their defaults.
        bits: which bits training draws, in words.
        evaluations: name of an evaluation file, such as `qat_lsq`, to its records, newest first.
        history: column of the history to its values, one per epoch, NaN where there is none.
        export: figures of the int8 export, or None.
        backbone: file of the trained backbone, or None.
        missing: one line for each thing that is not there, with the command that makes it.
        detections: name of a detection, such as `faster_rcnn, qat_lsq`, to what was measured.
    """

    path: str
    settings: dict[str, Any]
    changed: dict[str, Any]
    bits: str
    evaluations: dict[str, list[dict[str, Any]]]
    history: dict[str, list[float]]
    export: dict[str, Any] | None
    backbone: pathlib.Path | None
    missing: tuple[str, ...]
    detections: dict[str, DetectionRecord] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> Any:
        """Seed of the run."""
        return self.settings.get("seed")


def read_run(
    path: str,
    settings: dict[str, Any],
    changed: dict[str, Any],
    bits: str,
    backbone: pathlib.Path,
    history: pathlib.Path,
    evaluation: pathlib.Path,
    export: pathlib.Path,
    detection: pathlib.Path,
) -> RunRecord:
    """Reads what a run has made so far.

    Args:
        path: folder of the run, as it was given.
        settings: value of every setting.
        changed: value of the settings that differ from their defaults.
        bits: which bits training draws, in words.
        backbone: file of the trained backbone.
        history: file of the figures of every epoch.
        evaluation: folder of the evaluations.
        export: file of the export's figures.
        detection: folder of the detectors.

    Raises:
        UserError: when a file is there and cannot be read.
    """
    missing = []
    ended = backbone.exists()
    if not ended:
        missing.append(
            "The run has not ended, so there is no backbone: start the same `python -m tfcq.train` "
            f"with --run_dir={path} again."
        )
    figures = read_history(history)
    if not figures:
        missing.append(
            f"No history of the training: `python -m tfcq.train --run_dir={path}` writes it, a row "
            "per epoch."
        )
    evaluations = {file.stem: read_records(file) for file in sorted(evaluation.glob("*.json"))}
    evaluations = {name: records for name, records in evaluations.items() if records}
    after = "" if ended else ", once the run has ended"
    if not evaluations:
        missing.append(
            f"No evaluation: `python -m tfcq.evaluate --run_dir={path}` makes it{after}."
        )
    exported = read_export(export) if export.exists() else None
    if exported is None:
        missing.append(f"No int8 model: `python -m tfcq.export --run_dir={path}` makes it{after}.")
    return RunRecord(
        path,
        settings,
        changed,
        bits,
        evaluations,
        figures,
        exported,
        backbone if ended else None,
        tuple(missing),
        read_detections(detection),
    )


def read_history(file: pathlib.Path) -> dict[str, list[float]]:
    """Returns each column of a history file; none if there is no file or no row.

    Args:
        file: the CSV file.

    Returns:
        Column to its values, NaN where a row has none.

    Raises:
        UserError: when a value is no number, or there is no column `epoch`.
    """
    if not file.exists():
        return {}
    rows = read_rows(file)
    if not rows:
        return {}
    try:
        columns = {
            name: [float(row[name]) if row[name] else math.nan for row in rows] for name in rows[0]
        }
        columns["epoch"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} cannot be read as a history: {error!r}.") from None
    return columns


def read_export(file: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of an int8 export.

    Args:
        file: the JSON file.

    Raises:
        UserError: when it holds something else.
    """
    found = parse_json(read_text(file), str(file))
    check_form(found, _EXPORT, str(file))
    return found
