"""A trained detector in its folder: a file for each network, and what makes a detector of them."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tfcq.detection.detector import Detector
from tfcq.detection.faster_rcnn import FasterRCNN, FasterRCNNSettings
from tfcq.detection.mask_rcnn import MaskRCNN, MaskRCNNSettings
from tfcq.detection.object_detector import ObjectDetector
from tfcq.detection.yolo import Yolo, YoloSettings
from tfcq.errors import UserError, unknown_choice
from tfcq.files import read_text, whole_file, write_text
from tfcq.nn.loading import load
from tfcq.parsing import check_form, parse_json
from tfcq.settings.bitwidths import BitWidth, parse_bit_width

ABOUT = "detector.json"
_KINDS: dict[str, tuple[Any, Any]] = {
    "faster_rcnn": (FasterRCNN, FasterRCNNSettings),
    "mask_rcnn": (MaskRCNN, MaskRCNNSettings),
    "yolov4": (Yolo, YoloSettings),
}
_FORM = {
    "detector": str, "settings": {}, "seed": float, "networks": [str], "class_names": [str],
    "shorter_side": float, "longest_side": float, "trained_at": str,
}  # fmt: skip


def save_detector(
    detector: Detector,
    folder: str | os.PathLike,
    class_names: Sequence[str],
    shorter_side: int,
    longest_side: int,
    trained_at: BitWidth | None = None,
) -> None:
    """Writes a detector, which `load_detector` reads.

    Args:
        detector: the detector.
        folder: where it is written.
        class_names: names of its classes.
        shorter_side: length of the shorter side of the images that it sees, in pixels.
        longest_side: greatest length of their longer side.
        trained_at: the bit-width that it was trained at; None for float.
    """
    for name, part in detector.parts.items():
        with whole_file(part_file(folder, name)) as temporary:
            part.save(temporary)
    about = {
        "detector": detector.name,
        "settings": dataclasses.asdict(detector.settings),
        "seed": detector.seed,
        "networks": list(detector.parts),
        "class_names": list(class_names),
        "shorter_side": shorter_side,
        "longest_side": longest_side,
        "trained_at": "fp" if trained_at is None else str(trained_at),
    }
    write_text(pathlib.Path(folder) / ABOUT, json.dumps(about, indent=2) + "\n")


def load_detector(folder: str | os.PathLike) -> ObjectDetector:
    """Returns a detector that `tfcq.detect` trained, ready to find objects in images.

    Args:
        folder: where it was written: `RUN/detection/DETECTOR` (float), or of `--protocol=qat`
            `RUN/detection/DETECTOR/qat_QUANTIZER/BITS`.

    Raises:
        UserError: when there is none, or its files cannot be read.

    Example:

        >>> from tfcq.detection.saved import save_detector
        >>> from tfcq.detection.yolo import Yolo, YoloSettings, yolo_parts
        >>> backbone = tfcq.resnet(18, "imagenet", 4, (64, 64, 3), blocks=(1, 1, 1, 1))
        >>> settings = YoloSettings(depth=1)
        >>> trained = Yolo(yolo_parts(backbone, 2, "paper", settings), 2, settings)
        >>> save_detector(trained, "pets", ["cat", "dog"], shorter_side=64, longest_side=96)
        >>> (found,) = tfcq.load_detector("pets").detect([np.zeros((40, 40, 3), "uint8")])
        >>> len(found.boxes) == len(found.scores) == len(found.classes)
        True
    """
    folder = pathlib.Path(folder)
    file = folder / ABOUT
    if not file.is_file():
        raise UserError(
            f"{folder} holds no {ABOUT}; allowed: the folder of a detector that tfcq.detect "
            "trained (of an earlier version it writes the file when it is run again)."
        )
    kept = parse_json(read_text(file), str(file))
    check_form(kept, _FORM, str(file))
    if missing := [name for name in _FORM if name not in kept]:
        raise UserError(f"{file} has no {missing[0]!r}; allowed: a file that tfcq.detect wrote.")
    if kept["detector"] not in _KINDS:
        raise unknown_choice(f"detector in {file}", kept["detector"], _KINDS)
    kind, of_settings = _KINDS[kept["detector"]]
    known = {field.name for field in dataclasses.fields(of_settings)}
    if known != kept["settings"].keys():
        other = min(known ^ kept["settings"].keys())
        raise UserError(f"{file} is of another version of tfcq, which {other!r} tells.")
    settings = of_settings(**{name: _tuples(value) for name, value in kept["settings"].items()})
    parts = {name: load(part_file(folder, name)) for name in kept["networks"]}
    names = tuple(kept["class_names"])
    trained_at = parse_bit_width(kept["trained_at"])
    return ObjectDetector(
        kind(parts, len(names), settings, kept["seed"]), names, kept["shorter_side"],
        kept["longest_side"], None if trained_at.is_float else trained_at,
    )  # fmt: skip


def part_file(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """Returns the file of a network of a detector.

    Args:
        folder: the detector's.
        name: the network's.
    """
    return pathlib.Path(folder) / f"{name}.keras"


def _tuples(value: Any) -> Any:
    """Returns lists as the tuples that they were before they became JSON."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
