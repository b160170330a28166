"""Average precision of detectors over bit-widths: as a table, as a picture, and in a report."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.files import whole_file
from tfcq.reporting.accuracy import ABSENT
from tfcq.reporting.page import Block, Heading, Picture, Table, Text
from tfcq.reporting.plots import draw_accuracy
from tfcq.reporting.run_record import RunRecord
from tfcq.reporting.tables import percent, table

_FORMS = {"coco": "COCO", "voc07": "VOC07", "coco_masks": "COCO masks"}
_FIGURES = ("AP", "AP50", "AP75")
_LABEL = "average precision (%)"
# Those of VOC; a longer table is left to the record.
_MOST_CLASSES = 20


def precisions(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns each figure in each form by its title, by bit-width, in percent.

    Args:
        record: what a file of `tfcq.detect` holds.
    """
    results = record["results"]
    return {
        f"{title} {name}": {entry["bits"]: entry[form][name] for entry in results}
        for form, title in _FORMS.items()
        if form in results[0]
        for name in _FIGURES
    }


def detection_table(record: Mapping[str, Any]) -> str:
    """Returns the figures of a detection as text.

    Args:
        record: what `tfcq.detection.run.detect` returned.
    """
    rows = [
        (title, *(f"{value:.1f}" for value in by_bits.values()))
        for title, by_bits in precisions(record).items()
    ]
    bits = [entry["bits"] for entry in record["results"]]
    text = f"{_in_words(record)}\n{table(('bits', *bits), rows)}"
    by_class = _by_class(record["results"])
    if by_class and 1 < record["classes"] <= _MOST_CLASSES:
        text = f"{text}\n{table(('COCO AP of', *bits), by_class)}"
    if "int8" not in record:
        return text
    gates = [
        (name, gate["bytes"], percent(gate["simulation_equal_steps"]),
         "passed" if gate["passed"] else "FAILED")
        for name, gate in record["int8"].items()
    ]  # fmt: skip
    return f"{text}\n{table(('int8 file', 'bytes', 'steps as simulated %', 'gate'), gates)}"


def plot_precisions(path: pathlib.Path, record: Mapping[str, Any]) -> pathlib.Path:
    """Writes a picture of every figure of a detection over its bit-widths.

    Args:
        path: the PNG file.
        record: what a file of `tfcq.detect` holds.

    Returns:
        The file.
    """
    drawn = _drawn(precisions(record), [entry["bits"] for entry in record["results"]])
    with whole_file(path) as temporary:
        temporary.write_bytes(drawn)
    return path


def detection_blocks(runs: Sequence[RunRecord]) -> list[Block]:
    """Returns what a report shows of the detectors of runs: figures, their course, and boxes.

    Args:
        runs: the runs.
    """
    named: dict[str, list[RunRecord]] = {}
    for run in runs:
        for name in run.detections:
            named.setdefault(name, []).append(run)
    blocks: list[Block] = []
    for number, (name, several) in enumerate(sorted(named.items()), start=1):
        blocks += [Heading(name), *_blocks_of(name, number, several)]
    return blocks or [
        Text("No detector was trained: `python -m tfcq.detect --run_dir=RUN` trains one.")
    ]


def _blocks_of(name: str, number: int, runs: Sequence[RunRecord]) -> list[Block]:
    records = {run.path: run.detections[name].record for run in runs}
    bits = list(dict.fromkeys(e["bits"] for one in records.values() for e in one["results"]))
    found = {path: precisions(one) for path, one in records.items()}
    rows = [
        (path, title, *(f"{by_bits[b]:.1f}" if b in by_bits else ABSENT for b in bits))
        for path, figures in found.items()
        for title, by_bits in figures.items()
    ]
    about = "; ".join(f"{path}: {_in_words(one)}" for path, one in records.items())
    coco = f"{_FORMS['coco']} {_FIGURES[0]}"
    series = {path: figures[coco] for path, figures in found.items()}
    blocks: list[Block] = [
        Table(("run", "figure", *bits), rows, f"Average precision in percent. {about}."),
        Picture(
            f"detection_{number}",
            _drawn(series, bits, coco),
            f"{coco} over bit-widths, a line for each run: {', '.join(series)}.",
            f"{coco} over bit-widths.",
        ),
    ]
    for place, run in enumerate(runs, start=1):
        if boxes := run.detections[name].boxes:
            blocks.append(
                Picture(
                    f"detection_{number}_boxes_{place}",
                    boxes,
                    f"Test images with their boxes, and with what {run.path} found.",
                    f"{run.path}: the boxes of test images, and what was found at each bit-width "
                    "that was last measured.",
                )
            )
    return blocks


def _drawn(
    series: Mapping[str, Mapping[str, float]], bits: Sequence[str], title: str = ""
) -> bytes:
    shares = {
        name: [by_bits.get(b, float("nan")) / 100 for b in bits]
        for name, by_bits in series.items()
    }  # fmt: skip
    return draw_accuracy(bits, shares, title=title, ylabel=_LABEL)


def _in_words(record: Mapping[str, Any]) -> str:
    return (
        f"{record['dataset']}, {record['detector']}, {record['protocol']}, "
        f"{record['test_images']} test images of {record['classes']} classes"
    )


def _by_class(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a row for each class; without a figure where it has no box, or was not scored."""
    scored = [entry.get("by_class", {}) for entry in results]
    figures = [
        (name, [one[name]["coco"]["AP"] if name in one else None for one in scored])
        for name in next(filter(None, scored), {})
    ]
    return [
        (name, *("-" if value is None else f"{value:.1f}" for value in values))
        for name, values in figures
    ]
