"""When a run was started, and in a line what became of it."""

import csv
import datetime
import io
import os
import pathlib
import socket

from tfcq.errors import UserError
from tfcq.files import write_text
from tfcq.parsing import read_rows
from tfcq.settings.run_position import kept_positions

_COLUMNS = ("time", "host", "process", "steps_done")


def note_start(file: pathlib.Path, steps_done: int) -> None:
    """Adds a row to the starts of a run.

    Args:
        file: the CSV file.
        steps_done: steps that earlier starts have done.

    Raises:
        UserError: when the file holds something else.
    """
    rows = starts(file)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rows.append(dict(zip(_COLUMNS, (now, socket.gethostname(), os.getpid(), steps_done),
                         strict=True)))  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def starts(file: pathlib.Path) -> list[dict]:
    """Returns the starts of a run; none where the file does not exist.

    Args:
        file: the CSV file.

    Raises:
        UserError: when the file holds something else.
    """
    rows = read_rows(file) if file.exists() else []
    if any(tuple(row) != _COLUMNS for row in rows):
        raise UserError(f"{file} holds no starts of a run ({', '.join(_COLUMNS)}); move it away.")
    return [*rows]


def run_in_words(
    images: int, history: pathlib.Path, checkpoints: pathlib.Path, file: pathlib.Path
) -> str:
    """Returns one line about a run that has ended.

    Args:
        images: that its steps had, every view counted once.
        history: its `history.csv`, which has the rate of every epoch.
        checkpoints: the folder of its checkpoints.
        file: the CSV file of its starts.
    """
    told, rate = f"Trained: {images:,} images", _rate(history)
    if rate is not None:
        steps = datetime.timedelta(seconds=round(images / rate))
        told += f" in {steps} of steps ({rate:,.0f} images per second)"
    kept = ", ".join(one.file_name for one in kept_positions(checkpoints))
    return f"{told}; kept {kept}; interruptions: {len(starts(file)) - 1}"


def _rate(history: pathlib.Path) -> float | None:
    """Returns images a second over all epochs that tell; None where none does."""
    if not history.exists():
        return None
    found = (row.get("images_per_second") for row in read_rows(history))
    try:
        rates = [float(text) for text in found if text]
        # Epochs have equally many images, but for the last.
        return len(rates) / sum(1 / one for one in rates)
    except (ValueError, ZeroDivisionError):
        return None
