"""What a folder holds of an earlier detection, and whether that belongs to the settings at hand."""

import pathlib
from typing import Any

from tfcq.errors import UserError
from tfcq.files import read_text
from tfcq.parsing import parse_json
from tfcq.settings.detection import default_training

CONFIG = "config.json"


def is_begun(folder: pathlib.Path) -> bool:
    """Whether a training has left more than its settings, as one that was refused does not.

    Args:
        folder: where it is written.
    """
    return (folder / "checkpoints").exists() or any(folder.glob("*.keras"))


def check_earlier(folder: pathlib.Path, settings: dict[str, Any]) -> None:
    """Refuses a folder that holds another detector.

    Args:
        folder: the folder.
        settings: what decides which detector it is, by setting.

    Raises:
        UserError: showing the differences.
    """
    file = folder / CONFIG
    if not file.exists() or not is_begun(folder):
        return
    kept = parse_json(read_text(file), str(file))
    # What an earlier version did not know had its default.
    kept = {"backbone": settings.get("backbone"), **default_training(), **kept}
    changed = [
        f"{name}: {kept.get(name)!r} -> {value!r}"
        for name, value in settings.items()
        if kept.get(name) != value
    ]
    if changed:
        raise UserError(
            f"{folder} holds another detector ({'; '.join(changed)}); give the same settings to go "
            "on with it, or another --output_dir."
        )


def measured(file: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Returns what was measured before, by bit-width.

    Args:
        file: the record.
        record: what would be written there, without figures.

    Raises:
        UserError: when the file holds figures of other settings.
    """
    if not file.exists():
        return {}
    kept = parse_json(read_text(file), str(file))
    # Settings were compared with those in the folder.
    compared = {name: value for name, value in record.items() if name != "settings"}
    changed = [name for name, value in compared.items() if kept.get(name) != value]
    if changed:
        raise UserError(
            f"{file} holds figures of another {changed[0]}; move it away, or give another "
            "--output_dir."
        )
    return {entry["bits"]: {k: v for k, v in entry.items() if k != "bits"}
            for entry in kept["results"]}  # fmt: skip
