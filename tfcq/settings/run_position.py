"""Where in a run a checkpoint was written, which is its name, and which ones a folder holds."""

import dataclasses
import pathlib
import re

_FILE = re.compile(r"ckpt-([1-9]\d*|0)(?:\+([1-9]\d*))?\.(?:index|data-\d+-of-\d+)", re.ASCII)


@dataclasses.dataclass(frozen=True, order=True)
class RunPosition:
    """A moment of a run, written `2` after two epochs and `2+300` another 300 steps later.

    Args:
        epochs: epochs that have ended.
        steps: steps of the next one.
    """

    epochs: int
    steps: int = 0

    def __str__(self) -> str:
        return f"{self.epochs}+{self.steps}" if self.steps else f"{self.epochs}"

    @property
    def in_words(self) -> str:
        """How far it is, such as `2 and 300 steps`, behind the word epochs."""
        return f"{self.epochs} and {self.steps} steps" if self.steps else f"{self.epochs}"

    @property
    def file_name(self) -> str:
        """What the names of the checkpoint's files begin with."""
        return f"ckpt-{self}"


def kept_positions(folder: pathlib.Path) -> list[RunPosition]:
    """Returns the checkpoints of a folder in order, those with lost files included.

    Args:
        folder: where checkpoints are kept; it may not exist.
    """
    # Read name by name: in a pattern, and in TensorFlow's file of the newest, a path may mislead.
    names = (file.name for file in folder.iterdir()) if folder.is_dir() else ()
    found = {(m[1], m[2]) for name in names if (m := _FILE.fullmatch(name))}
    return sorted(RunPosition(int(epochs), int(steps or 0)) for epochs, steps in found)


def files_of(folder: pathlib.Path, position: RunPosition) -> list[pathlib.Path]:
    """Returns the files of a checkpoint, its index first.

    Args:
        folder: where checkpoints are kept.
        position: the checkpoint's.
    """
    start = f"{position.file_name}."
    found = (file for file in folder.iterdir() if file.name.startswith(start))
    return sorted(found, key=lambda file: (file.suffix != ".index", file.name))
