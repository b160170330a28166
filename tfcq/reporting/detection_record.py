"""What the folder of a detector holds, read without TensorFlow."""

import dataclasses
import glob
import pathlib
import re
from typing import Any

from tfcq.errors import UserError
from tfcq.files import read_text
from tfcq.parsing import check_form, parse_json

_AVERAGE_PRECISION = dict.fromkeys(("AP", "AP50", "AP75"), float)
# What is read of the file of a detection, and of the figures of its int8 files.
_DETECTION = {
    **dict.fromkeys(("dataset", "detector", "protocol"), str),
    **dict.fromkeys(("test_images", "classes"), float),
    "results": [
        {
            "bits": str,
            **dict.fromkeys(("coco", "voc07", "coco_masks"), _AVERAGE_PRECISION),
            "by_class": {"*": {"coco": {}}},
        }
    ],
}
# What follows the name of a record in that of the picture of its boxes.
_DRAWN = re.compile(r"(_(fp|\d+w(\d+a)?|\d+a))+")
_GATES = {"*": {"bytes": float, "simulation_equal_steps": float}}


@dataclasses.dataclass(frozen=True)
class DetectionRecord:
    """A detector, as a report sees it.

    Args:
        record: what its file holds; with what the gate found of its int8 files, by name.
        boxes: picture of what it found, as PNG; None where none was drawn.
    """

    record: dict[str, Any]
    boxes: bytes | None


def read_detections(folder: pathlib.Path) -> dict[str, DetectionRecord]:
    """Returns what was measured of the detectors of a run, by detector and protocol.

    Args:
        folder: with a folder for each detector.

    Raises:
        UserError: when a file holds something else.
    """
    return {
        name: one
        for inner in sorted(folder.glob("*/"))
        for name, one in read_detector(inner, inner.name).items()
    }


def is_detector(folder: pathlib.Path) -> bool:
    """Whether a folder is that of a detector, and not of a run.

    Args:
        folder: the folder.
    """
    return any(folder.glob("finetune*.json"))


def read_detector(folder: pathlib.Path, name: str | None = None) -> dict[str, DetectionRecord]:
    """Returns what was measured of a detector, by its name and protocol.

    Args:
        folder: where `tfcq.detect` wrote it.
        name: the detector's; None for what its files say.

    Raises:
        UserError: when a file holds something else.
    """
    found: dict[str, DetectionRecord] = {}
    for file in sorted([*folder.glob("finetune*.json"), *folder.glob("qat_*/qat*.json")]):
        record = parse_json(read_text(file), str(file))
        check_form(record, _DETECTION, str(file))
        if "detector" not in record:
            raise UserError(
                f"{file} tells of no detector; allowed: folders of runs, such as {folder.parent}, "
                "or what python -m tfcq.detect wrote."
            )
        # Int8 files are those of the float detector, whatever was done after training.
        if file.parent == folder and not any("int8" in one.record for one in found.values()):
            record |= _int8(folder / "int8")
        # That of most bit-widths; other names are of other pictures or records.
        drawn = file.parent.glob(f"{glob.escape(file.stem)}_*.png")
        named = [one for one in drawn if _DRAWN.fullmatch(one.stem.removeprefix(file.stem))]
        boxes = max(named, key=lambda one: len(one.name), default=None)
        inner = file.relative_to(folder).parent.parts
        full = ", ".join([name or record["detector"], *inner, file.stem])
        found[full] = DetectionRecord(record, boxes.read_bytes() if boxes else None)
    return found


def _int8(folder: pathlib.Path) -> dict[str, Any]:
    gates: dict[str, Any] = {}
    for file in sorted(folder.glob("gate_*.json")):
        found = parse_json(read_text(file), str(file))
        check_form(found, _GATES, str(file))
        bits = file.stem.removeprefix("gate_")
        gates |= {f"{name}_{bits}.tflite": gate for name, gate in found.items()}
    return {"int8": gates} if gates else {}
