#!/usr/bin/env python3
"""Trains under adverse circumstances, each in real commands, and tables what happened.

    .venv/bin/python tools/circumstances.py --output=results/circumstances

A full disk, a limit on the size of files, a disk that became read-only, a moved folder, two
processes at once, clocks set back, names with spaces, brackets, patterns and line breaks. Then the
cause is taken away, the same command goes on, and its end is compared to the last bit with that of
a run that was left alone. Disks are small tmpfs mounts, which takes the rights to mount one; as
root, permissions stop nobody. Writes `.json` and `.md`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from chaos import ENVIRONMENT, differences, start
from provenance import commit_here, short

from tfcq.files import write_text
from tfcq.reporting.tables import table
from tfcq.settings.run_position import kept_positions

FLAGS = (
    "--dataset=digits", "--train_images=64", "--backbone=cifar_resnet8", "--width=2",
    "--projection_width=8", "--predictor_width=8", "--batch_size=32", "--duration=301steps",
    "--save_every=7steps", "--deterministic", "--seed=3",
)  # fmt: skip
ODD = "a b [c]*?{d} 'e' \"f\" é日本\nline"
_SECONDS = 3600
_YEARS = 10 * 365 * 86_400
_LEFT, _SMALL_FILE, _DISK = 100_000, 20_000, 2_000_000
Row = dict[str, Any]


def main() -> None:
    """Tries all circumstances and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="with this in their name; others stay")
    parser.add_argument("--output", help="where .json and .md are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        alone = place / "alone"
        ended = run(alone)
        assert ended["code"] == 0, ended["told"]
        earlier = pathlib.Path(f"{arguments.output}.json")
        known = json.loads(earlier.read_text())["rows"] if earlier.exists() else []
        rows = {row["circumstance"]: row for row in known}
        for circumstance, attempt in CIRCUMSTANCES.items():
            if arguments.only in circumstance:
                row = {"circumstance": circumstance, **attempt(place, alone)}
                row["told"] = row["told"].replace(str(place), "")
                rows[circumstance] = {**row, "commit": commit_here()}
                print(json.dumps(row), flush=True)
    found = {
        "command": "tools/circumstances.py",
        "seed": 3,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "rows": [rows[circumstance] for circumstance in CIRCUMSTANCES if circumstance in rows],
    }
    if arguments.output:
        write_text(f"{arguments.output}.json", json.dumps(found, indent=2) + "\n")
        write_text(f"{arguments.output}.md", page(found))
    sys.exit(not all(row["end"] == "equal" for row in found["rows"]))


def command(folder: pathlib.Path) -> list[str]:
    """Returns the command line of the run in a folder.

    Args:
        folder: the folder.
    """
    return [sys.executable, "-m", "tfcq.train", f"--run_dir={folder}", *FLAGS]


def run(folder: pathlib.Path, limit: int | None = None) -> Row:
    """Trains until a command ends by itself; returns its exit code and what it told last.

    Args:
        folder: of the run.
        limit: the greatest size of a file that it may write.
    """
    lower = None if limit is None else lambda: _limit(limit)
    ended = subprocess.run(
        command(folder), capture_output=True, text=True, timeout=_SECONDS, preexec_fn=lower,
        check=False, errors="replace", env=ENVIRONMENT,
    )  # fmt: skip
    errors = [line for line in ended.stderr.splitlines() if line.startswith(("error", "Trace"))]
    lines = errors or [line for line in ended.stdout.splitlines() if "Going on" in line]
    return {"code": ended.returncode, "told": " | ".join(lines)}


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def cut_off(folder: pathlib.Path) -> None:
    """Trains a part of a run, and kills it.

    Args:
        folder: of the run.
    """
    process = start(command(folder), pathlib.Path(os.devnull))
    until = time.monotonic() + _SECONDS
    while len(kept_positions(folder / "checkpoints")) < 2 and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def compared(row: Row, alone: pathlib.Path, folder: pathlib.Path) -> Row:
    """Goes on with a run to its end, and adds how that was.

    Args:
        row: what happened before.
        alone: a run that was left alone.
        folder: of the run.
    """
    ended = run(folder)
    other = differences(alone, folder) if ended["code"] == 0 else [ended["told"]]
    told = " | ".join(filter(None, (row["told"], ended["told"] if ended["code"] == 0 else "")))
    return {**row, "told": told, "end": "equal" if not other else "; ".join(other)[:300]}


@contextlib.contextmanager
def disk(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a small disk.

    Args:
        place: where a folder for it is made.
    """
    point = place / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", point]
    subprocess.run(mount, check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        point.rmdir()


def full(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """The disk takes no more from the first checkpoints on; then it does."""
    with disk(place) as point:
        filler = point / "filler"
        filler.write_bytes(bytes(_DISK - _LEFT))
        row = run(point / "run")
        filler.unlink()
        return compared(row, alone, point / "run")


def limited(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """No file may have more than 20 kB, which a checkpoint has."""
    return compared(run(place / "limited", _SMALL_FILE), alone, place / "limited")


def read_only(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """A run that was cut off is on a disk that became read-only; then that is taken back."""
    with disk(place) as point:
        cut_off(point / "run")
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        row = run(point / "run")
        subprocess.run(["mount", "-o", "remount,rw", point], check=True)
        return compared(row, alone, point / "run")


def moved(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """A run that was cut off is moved to another place."""
    cut_off(place / "here")
    shutil.move(place / "here", place / "there" / "run")
    return compared({"code": None, "told": ""}, alone, place / "there" / "run")


def two(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """A second process is started while the first trains."""
    folder = place / "two"
    first = start(command(folder), pathlib.Path(os.devnull))
    while not (folder / "checkpoints").exists():
        assert first.poll() is None
        time.sleep(0.01)
    # Stopped, or else it might end before the second one is ready.
    first.send_signal(signal.SIGSTOP)
    row = run(folder)
    first.send_signal(signal.SIGCONT)
    first.wait(_SECONDS)
    return compared(row, alone, folder)


def clock(years: int) -> Callable[[pathlib.Path, pathlib.Path], Row]:
    """Returns an attempt in which all files are so many seconds younger or older than they are.

    Args:
        years: the seconds.
    """

    def attempt(place: pathlib.Path, alone: pathlib.Path) -> Row:
        folder = place / f"clock{years}"
        cut_off(folder)
        for number, file in enumerate(sorted(folder.rglob("*"))):
            # The order of their moments is turned round, too.
            moment = time.time() + years - number
            os.utime(file, (moment, moment))
        return compared({"code": None, "told": ""}, alone, folder)

    return attempt


def odd(place: pathlib.Path, alone: pathlib.Path) -> Row:
    """The folder's name has all that has a meaning to somebody; it is cut off and goes on."""
    cut_off(place / ODD)
    row = compared({"code": None, "told": ""}, alone, place / ODD)
    scored = [f"--run_dir={place / ODD}", "--protocol=knn", "--bits=4w4a", "--test_images=64"]
    for one, flags in (
        ("evaluate", scored), ("report", [str(place / ODD), "--tsne_bits=",
                                          f"--output={place / ODD / 'report'}"]),
    ):  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-m", f"tfcq.{one}", *flags], capture_output=True, text=True,
            timeout=_SECONDS, check=False, env=ENVIRONMENT,
        )  # fmt: skip
        if ended.returncode:
            row["end"] = f"tfcq.{one}: {ended.stderr[-200:]}"
    return row


CIRCUMSTANCES: dict[str, Callable[[pathlib.Path, pathlib.Path], Row]] = {
    "full disk": full,
    "limit on the size of files": limited,
    "disk that became read-only": read_only,
    "moved folder": moved,
    "two processes at once": two,
    "clock set back: files of 10 years ahead": clock(_YEARS),
    "clock set forward: files of 10 years ago": clock(-_YEARS),
    f"folder {ODD!r}": odd,
}


def page(found: dict[str, Any]) -> str:
    """Returns the table of what was found, in Markdown.

    Args:
        found: as it is written to JSON.
    """
    rows = [
        [row["circumstance"].replace("|", "\\|"), "" if row["code"] is None else str(row["code"]),
         row["told"].replace("|", "\\|") or "goes on as ever", row["end"]]
        for row in found["rows"]
    ]  # fmt: skip
    text = table(["circumstance", "exit code", "told", "end"], rows)
    return (
        "# Runs under adverse circumstances\n\n"
        f"{text}\n\n"
        "End: of the same command once the cause is gone; equal is to the last bit "
        "(checkpoints, network, history but for `images_per_second`), of a run that was left "
        "alone. No exit code: nothing was in the command's way.\n\n"
        f"`tfcq.train {' '.join(FLAGS)}`\n\n"
        f"- Command: `{found['command']}`\n- Seed: {found['seed']}\n"
        f"- Commit: {', '.join(sorted({short(row['commit']) for row in found['rows']}))}\n"
        f"- Machine: {found['machine']}\n"
    )


if __name__ == "__main__":
    main()
