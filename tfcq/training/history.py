"""The figures of every epoch as CSV, and one line of progress over the whole run."""

import contextlib
import csv
import io
import math
import os
import pathlib
import shutil
import sys
import time
from typing import Any, TextIO

import keras

from tfcq.errors import UserError
from tfcq.files import write_text
from tfcq.parsing import read_rows
from tfcq.settings.durations import Duration

# What a line of progress shows, by the names that history.csv has.
SHOWN = ("loss", "feature_std_ratio", "cosine_float_quantized", "images_per_second")


class HistoryFile(keras.callbacks.Callback):
    """Keeps `history.csv`: one row per epoch, the file rewritten whole each time.

    Args:
        path: the file.
        epochs_done: rows of later epochs, left by a run that was cut off, are dropped.

    Raises:
        UserError: when the file is there and holds something else, or has lost rows.
    """

    def __init__(self, path: str | pathlib.Path, epochs_done: int = 0) -> None:
        super().__init__()
        self.path = pathlib.Path(path)
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            rows: list[dict[str, Any]] = [*read_rows(self.path)]
            try:
                self.rows = [row for row in rows if int(row["epoch"]) <= epochs_done]
            except (KeyError, ValueError):
                raise UserError(
                    f"{self.path} holds no history: it needs a column 'epoch' of whole numbers; "
                    "move it away."
                ) from None
            self._check_whole(epochs_done)
        elif epochs_done:
            print(f"{self.path} is gone: its rows begin anew with epoch {epochs_done + 1}.")

    def _check_whole(self, epochs_done: int) -> None:
        numbers = [int(row["epoch"]) for row in self.rows]
        first = min(numbers, default=1)
        if numbers != list(range(first, epochs_done + 1)):
            held = ", ".join(map(str, numbers[-20:])) or "no row"
            raise UserError(
                f"{self.path} has lost rows: of {epochs_done} epochs it holds {held}. Put it back, "
                "or move it away to go on without them."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds a row.

        Args:
            epoch: index of the epoch; rows count from 1.
            logs: the epoch's figures.
        """
        figures = {name: f"{float(value):.6g}" for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **figures})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


class Progress(keras.callbacks.Callback):
    """One progress bar over the whole run, with the time left.

    On a terminal the line is rewritten, with as many figures as fit; elsewhere a line is printed
    after the first epoch, for each tenth of the run, and at least every minute.

    Args:
        total_steps: steps of the run.
        steps: steps per epoch; the last one may have fewer.
        first_step: steps that an earlier start of the run has done.
        stream: where to write; standard error by default.
        length: what the run was given as, in whose unit it is counted; epochs by default.
    """

    WIDTH = 24

    def __init__(
        self,
        total_steps: int,
        steps: int,
        first_step: int = 0,
        stream: TextIO | None = None,
        length: Duration | None = None,
    ) -> None:
        super().__init__()
        self.length = length or Duration(math.ceil(total_steps / steps))
        self.total_steps = total_steps
        self.epochs = math.ceil(total_steps / steps)
        self.steps = steps
        self.first_step = self.done = first_step
        self.stream = stream or sys.stderr
        # A dumb one does not go back to the start of its line.
        self.on_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.started = self.shown = time.monotonic()
        self.rate_start: tuple[int, float] | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts steps and redraws the line, at most twice a second, or prints one each minute.

        Args:
            batch: unused.
            logs: the figures so far.
        """
        self.done += self.model.steps_per_execution if self.model else 1
        now = time.monotonic()
        if self.rate_start is None:
            self.rate_start = self.done, now
        if now - self.shown > (0.5 if self.on_terminal else 60):
            self.shown = now
            self._show(logs or {}, end="" if self.on_terminal else "\n")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints a line after the first epoch, and for each tenth of the run.

        Args:
            epoch: index of the epoch.
            logs: the epoch's figures.
        """
        last = epoch + 1 == self.epochs
        tenth = (epoch + 1) * 10 // self.epochs > epoch * 10 // self.epochs
        first = epoch == self.first_step // self.steps
        if last or ((first or tenth) and not self.on_terminal):
            self.shown = time.monotonic()
            self._show(logs or {}, end="\n")

    def _show(self, logs: dict[str, Any], end: str) -> None:
        filled = self.WIDTH * self.done // self.total_steps
        bar = f"[{'=' * filled}{'.' * (self.WIDTH - filled)}]"
        parts = [self._position(), bar, self._time_left()]
        parts += [f"{name}={float(logs[name]):.4g}" for name in SHOWN if name in logs]
        text = " ".join(parts)
        if self.on_terminal:
            # A full line would wrap; the bar is what can be spared, then figures, never digits.
            width = _columns(self.stream) - 1
            if len(text) > width:
                parts.remove(bar)
            while len(parts) > 1 and len(" ".join(parts)) > width:
                parts.pop()
            text = f"\r{' '.join(parts)[:width]:<{width}}"
        # A terminal that was closed ends no run.
        with contextlib.suppress(OSError):
            print(text, end=end, file=self.stream, flush=True)

    def _position(self) -> str:
        if self.length.unit == "epochs":
            epoch = min((self.done - 1) // self.steps + 1, self.epochs)
            return f"epoch {epoch}/{self.epochs}"
        total = int(self.length.amount)
        done = round(total * self.done / self.total_steps)
        return f"{self.length.unit.removesuffix('s')} {done}/{total}"

    def _time_left(self) -> str:
        if self.done >= self.total_steps:
            return "ETA 0:00"
        if self.rate_start is None or self.done == self.rate_start[0]:
            return "ETA --:--"
        step, since = self.rate_start
        seconds = (self.total_steps - self.done) * (time.monotonic() - since) / (self.done - step)
        minutes, seconds = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"ETA {hours}:{minutes:02d}:{seconds:02d}" if hours else f"ETA {minutes}:{seconds:02d}"
        )


def _columns(stream: TextIO) -> int:
    """Returns how many characters a line of a terminal has."""
    try:
        # Where it does not know, it says 0.
        return os.get_terminal_size(stream.fileno()).columns or shutil.get_terminal_size().columns
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns
