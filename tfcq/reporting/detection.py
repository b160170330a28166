"""Average precision of a detector over bit-widths, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.reporting.tables import percent, table

_FORMS = {"coco": "COCO", "voc07": "VOC07", "coco_masks": "COCO masks"}
_FIGURES = ("AP", "AP50", "AP75")
# Those of VOC; a longer table is left to the record.
_MOST_CLASSES = 20


def detection_table(record: Mapping[str, Any]) -> str:
    """Returns the figures of a detection as text.

    Args:
        record: what `tfcq.detection.run.detect` returned.
    """
    results = record["results"]
    rows = [
        (f"{title} {name}", *(f"{entry[form][name]:.1f}" for entry in results))
        for form, title in _FORMS.items()
        if form in results[0]
        for name in _FIGURES
    ]
    head = (
        f"{record['dataset']}, {record['detector']}, {record['protocol']}, "
        f"{record['test_images']} test images of {record['classes']} classes"
    )
    bits = [entry["bits"] for entry in results]
    text = f"{head}\n{table(('bits', *bits), rows)}"
    if 1 < record["classes"] <= _MOST_CLASSES and (by_class := _by_class(results)):
        text = f"{text}\n{table(('COCO AP of', *bits), by_class)}"
    if "int8" not in record:
        return text
    gates = [
        (name, gate["bytes"], percent(gate["simulation_equal_steps"]),
         "passed" if gate["passed"] else "FAILED")
        for name, gate in record["int8"].items()
    ]  # fmt: skip
    return f"{text}\n{table(('int8 file', 'bytes', 'steps as simulated %', 'gate'), gates)}"


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
