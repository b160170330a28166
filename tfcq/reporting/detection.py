"""Average precision of a detector over bit-widths, as a table."""

from collections.abc import Mapping
from typing import Any

from tfcq.reporting.tables import percent, table

_FORMS = {"coco": "COCO", "voc07": "VOC07", "coco_masks": "COCO masks"}
_FIGURES = ("AP", "AP50", "AP75")


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
    text = f"{head}\n{table(('bits', *(entry['bits'] for entry in results)), rows)}"
    if "int8" not in record:
        return text
    gates = [
        (name, gate["bytes"], percent(gate["simulation_equal_steps"]),
         "passed" if gate["passed"] else "FAILED")
        for name, gate in record["int8"].items()
    ]  # fmt: skip
    return f"{text}\n{table(('int8 file', 'bytes', 'steps as simulated %', 'gate'), gates)}"
