"""Average precision of detectors over bit-widths: as a table, as a picture, and in a report."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.files import whole_file
from tfcq.reporting.accuracy import ABSENT
from tfcq.reporting.detection_record import DetectionRecord
from tfcq.reporting.page import Block, Heading, Picture, Table, Text
from tfcq.reporting.plots import draw_accuracy, draw_panels
from tfcq.reporting.tables import percent, table

_FORMS = {"coco": "COCO", "voc07": "VOC07", "coco_masks": "COCO masks"}
_FIGURES = ("AP", "AP50", "AP75")
_INT8 = ("int8 file", "bytes", "steps as simulated %", "gate")
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
    if by_class := _by_class(record):
        text = f"{text}\n{table(('COCO AP of', *bits), by_class)}"
    if "int8" not in record:
        return text
    return f"{text}\n{table(_INT8, _int8(record))}"


def plot_precisions(path: pathlib.Path, record: Mapping[str, Any]) -> pathlib.Path:
    """Writes a picture of every figure of a detection over its bit-widths.

    Args:
        path: the PNG file.
        record: what a file of `tfcq.detect` holds.

    Returns:
        The file.
    """
    results = record["results"]
    panels = {
        title: {name: [one[form][name] for one in results] for name in _FIGURES}
        for form, title in _FORMS.items()
        if form in results[0]
    }
    drawn = draw_panels([one["bits"] for one in results], panels, _LABEL)
    with whole_file(path) as temporary:
        temporary.write_bytes(drawn)
    return path


def detection_blocks(detectors: Mapping[str, Mapping[str, DetectionRecord]]) -> list[Block]:
    """Returns what a report shows of detectors: figures, their course, boxes, and int8 files.

    Args:
        detectors: path of a run, or of a detector, to what was measured there, by name.
    """
    named: dict[str, dict[str, DetectionRecord]] = {}
    for path, found in detectors.items():
        for name, one in found.items():
            named.setdefault(name, {})[path] = one
    blocks: list[Block] = []
    for number, (name, several) in enumerate(sorted(named.items()), start=1):
        blocks += [Heading(name), *_blocks_of(number, several)]
    return blocks or [
        Text("No detector was trained: `python -m tfcq.detect --run_dir=RUN` trains one.")
    ]


def _blocks_of(number: int, detectors: Mapping[str, DetectionRecord]) -> list[Block]:
    records = {path: one.record for path, one in detectors.items()}
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
    for place, (path, one) in enumerate(detectors.items(), start=1):
        if one.boxes:
            blocks.append(
                Picture(
                    f"detection_{number}_boxes_{place}",
                    one.boxes,
                    f"Test images with their boxes, and with what {path} found.",
                    f"{path}: the boxes of test images, and what was found at each bit-width "
                    "that was last measured.",
                )
            )
        own = [entry["bits"] for entry in one.record["results"]]
        if by_class := _by_class(one.record):
            blocks.append(Table(("class", *own), by_class, f"{path}: COCO AP of each class."))
        if "int8" in one.record:
            text = f"{path}: its networks as int8 files, of which the gate compares every tensor."
            blocks.append(Table(_INT8, _int8(one.record), text))
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


def _int8(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, f"{gate['bytes']:,}", percent(gate["simulation_equal_steps"]),
         "passed" if gate["passed"] else "FAILED")
        for name, gate in record["int8"].items()
    ]  # fmt: skip


def _by_class(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns a row for each class; without a figure where it has no box, or was not scored.

    None are returned of a single class, or of more than a page takes.
    """
    if not 1 < record["classes"] <= _MOST_CLASSES:
        return []
    scored = [entry.get("by_class", {}) for entry in record["results"]]
    figures = [
        (name, [one[name]["coco"]["AP"] if name in one else None for one in scored])
        for name in next(filter(None, scored), {})
    ]
    return [
        (name, *("-" if value is None else f"{value:.1f}" for value in values))
        for name, values in figures
    ]
