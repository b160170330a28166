#!/usr/bin/env python3
"""Kills commands again and again, and compares their end with that of one that nobody killed.

    .venv/bin/python tools/chaos.py --output=results/chaos

Every task runs once undisturbed. Then it is started, and killed, in a folder of its own until its
share of SIGKILLs and SIGTERMs is spent, and goes on to its end. Every second SIGKILL comes within a
write: at a random one of the calls that bring files to the disk, give them their names and remove
them. The others come at a random moment, and SIGTERM at one after a save. What must be equal to
the bit: checkpoints, saved networks, histories but for `images_per_second`, records.
Writes `.json` and `.md`.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from provenance import commit_here, short

from tfcq.files import UNFINISHED, write_text
from tfcq.reporting.tables import table
from tfcq.settings.run_position import kept_positions

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
_RUN = (
    "--dataset=digits", "--train_images=128", "--backbone=cifar_resnet8", "--batch_size=32",
    "--deterministic", "--seed=5",
)  # fmt: skip
_NARROW = ("--width=2", "--projection_width=8", "--predictor_width=8")
_START, _DETECTED = "simsiam", "resnet.keras"
# Command, flags, and where in the folder it writes. A run is the folder itself.
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    _START: (
        "train", (*_RUN, *_NARROW, "--duration=602steps", "--save_every=15steps"),
    ),
    "mocov2": (
        "train",
        (*_RUN, "--framework=mocov2", "--queue_size=128", "--width=4", "--projection_width=16",
         "--projection_hidden=16", "--learning_rate=0.005", "--duration=402steps",
         "--save_every=10steps", "--keep=3"),
    ),
    "byol": (
        "train",
        (*_RUN, "--framework=byol", "--recipe=cq_c", *_NARROW, "--learning_rate=0.01",
         "--duration=402steps", "--save_every=10steps"),
    ),
    "qat": (
        "evaluate",
        ("--protocol=qat", "--bits=8w8a,4w4a,2w4a", "--epochs=4",
         "--learning_rate_schedule=cosine", "--deterministic", "--keep_classifiers"),
    ),
    "detect": (
        "detect",
        ("--dataset=scenes", "--deterministic", "--duration=122steps", "--batch_size=4",
         "--save_every=5steps", "--bits=fp,4w4a", "--test_images=16", "--warmup=10steps"),
    ),
}  # fmt: skip
# Runs a module as `python -m` does, and kills it at the given call.
AIMED = """
import os, runpy, signal, sys

left = int(sys.argv.pop(1))

def killed(call):
    def counted(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return counted

for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
    setattr(os, name, killed(getattr(os, name)))
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
# Of which a save has about a dozen.
_CALLS = 60
KILL, TERM = signal.SIGKILL, signal.SIGTERM
_POLL, _SECONDS = 0.001, 7200
# What notes every start, and so is another file of a run that was cut off.
_STARTS = "starts.csv"
# What differs between two runs that are the same: when, how fast, and where in memory.
_MOMENTS = {"images_per_second", "seconds", "date_saved", "shared_object_id"}
_COUNTED = (
    "kills", "kills_aimed", "terms", "terms_saved", "fallbacks", "left",
)  # fmt: skip


def main() -> None:
    """Runs, kills and compares all tasks, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=11, help="SIGKILLs of each task")
    parser.add_argument("--terms", type=int, default=2, help="SIGTERMs of each task")
    parser.add_argument("--tasks", default=",".join(TASKS), help="in a page of before, others stay")
    parser.add_argument("--seed", type=int, default=0, help="seed of all moments")
    parser.add_argument("--output", help="where .json and .md are written")
    arguments = parser.parse_args()
    names = [name for name in TASKS if name in arguments.tasks.split(",")]
    earlier = pathlib.Path(f"{arguments.output}.json")
    tasks = json.loads(earlier.read_text())["tasks"] if earlier.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        _save_backbone(folder / _DETECTED)
        if _START not in names:
            _undisturbed(
                command_of(_START, folder, folder / _START), folder / _START, folder / "log"
            )
        for name in names:
            fared = disturbed(name, folder, arguments.kills, arguments.terms, arguments.seed)
            tasks[name] = {**fared, "commit": commit_here()}
            print(name, json.dumps(tasks[name]), flush=True)
    found = {
        "command": f"tools/chaos.py --kills={arguments.kills} --terms={arguments.terms} "
        f"--seed={arguments.seed}",
        "seed": arguments.seed,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "tasks": {name: tasks[name] for name in TASKS if name in tasks},
    }
    if arguments.output:
        write_text(f"{arguments.output}.json", json.dumps(found, indent=2) + "\n")
        write_text(f"{arguments.output}.md", page(found))
    sys.exit(any(task["differences"] or task["unknown_ends"] for task in tasks.values()))


def _save_backbone(path: pathlib.Path) -> None:
    """Writes a small ResNet, which a detector needs."""
    import keras

    import tfcq

    keras.utils.set_random_seed(0)
    network = tfcq.resnet(18, "imagenet", 4, (64, 64, 1), blocks=(1, 1, 1, 1))
    tfcq.quantizable(network).save(path)


def command_of(
    name: str,
    place: pathlib.Path,
    folder: pathlib.Path,
    program: tuple[str, ...] | None = None,
) -> list[str]:
    """Returns the command line of a task.

    Args:
        name: the task.
        place: where the runs are that others take their network from.
        folder: what it writes into.
        program: what runs the module instead of Python itself.
    """
    command, flags = TASKS[name]
    subject = [f"--run_dir={folder}"]
    if command != "train":
        subject = [f"--model={place / _DETECTED}", f"--output_dir={folder}"]
    if command == "evaluate":
        subject[0] = f"--model={place / _START / 'backbone.keras'}"
        subject += ["--dataset=digits", "--train_images=256", "--policy=paper"]
    return [*(program or (sys.executable, "-m")), f"tfcq.{command}", *subject, *flags]


def disturbed(name: str, place: pathlib.Path, kills: int, terms: int, seed: int) -> dict[str, Any]:
    """Returns how a task fared that was killed again and again.

    Args:
        name: the task.
        place: for the folders of the tasks.
        kills: how many SIGKILLs.
        terms: how many SIGTERMs.
        seed: of all moments.
    """
    whole, log = place / name, place / "log"
    until_written = _undisturbed(command_of(name, place, whole), whole, log)
    draw = random.Random(f"{seed} {name}")
    due = [(KILL, number % 2 == 0) for number in range(kills)] + [(TERM, False)] * terms
    draw.shuffle(due)
    found: dict[str, Any] = {"runs": 0, **dict.fromkeys(_COUNTED, 0), "term_seconds": 0.0}
    found |= {"unknown_ends": [], "differences": []}
    while due:
        folder = place / f"{name} cut {found['runs']}"
        while due and _interrupted(name, place, folder, due[-1], draw, until_written, found):
            due.pop()
        # To its end; where a run had ended already, nothing changes.
        _make_room(name, folder)
        _ended(start(command_of(name, place, folder), log), log, found)
        found["runs"] += 1
        found["left"] += len(_temporary(folder))
        found["differences"] += differences(whole, folder)
        shutil.rmtree(folder)
    return found


def start(command: list[str], log: pathlib.Path) -> subprocess.Popen:
    """Starts a command whose output goes to a file.

    Args:
        command: the command.
        log: the file.
    """
    with open(log, "wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )  # fmt: skip


def _ended(
    process: subprocess.Popen,
    log: pathlib.Path,
    found: dict[str, Any],
    codes: tuple[int, ...] = (0,),
) -> str:
    """Waits for the end of a command, counts how it was, and returns what was printed."""
    code = process.wait(timeout=_SECONDS)
    told = log.read_text(errors="replace")
    found["fallbacks"] += told.count("steps are made again")
    if code not in codes or "Traceback" in told:
        found["unknown_ends"].append({"code": code, "told": told[-600:]})
    return told


def _undisturbed(command: list[str], folder: pathlib.Path, log: pathlib.Path) -> float:
    """Runs a command to its end; returns the seconds until it saved first, or all of them."""
    process, began, first = start(command, log), time.monotonic(), 0.0
    while process.poll() is None:
        if not first and (folder / "checkpoints").exists():
            first = time.monotonic() - began
        time.sleep(0.05)
    took = time.monotonic() - began
    found: dict[str, Any] = {"fallbacks": 0, "unknown_ends": []}
    _ended(process, log, found)
    if found["unknown_ends"]:
        raise SystemExit(f"{' '.join(command)}: {found['unknown_ends'][0]['told']}")
    return first or took


def _interrupted(
    name: str,
    place: pathlib.Path,
    folder: pathlib.Path,
    due: tuple[signal.Signals, bool],
    draw: random.Random,
    until_written: float,
    found: dict[str, Any],
) -> bool:
    """Starts a command and ends it by a signal; False where it ended before that came."""
    (number, aimed), log = due, place / "log"
    own = (sys.executable, "-c", AIMED, str(draw.randint(1, _CALLS))) if aimed else None
    _make_room(name, folder)
    then = draw.uniform(0.3, 1) * until_written * (number == KILL) + draw.uniform(0, 3)
    process = start(command_of(name, place, folder, own), log)
    if number == TERM and TASKS[name][0] != "evaluate":
        _await_checkpoint(process, folder)
    sent = time.monotonic() + then
    while process.poll() is None and (aimed or time.monotonic() < sent):
        time.sleep(_POLL)
    if process.poll() is None:
        process.send_signal(number)
    told = _ended(process, log, found, (-KILL if number == KILL else 128 + TERM, 0))
    if process.returncode == 0:
        return False
    if number == KILL:
        found["kills"] += 1
        found["kills_aimed"] += aimed
    else:
        found["terms"] += 1
        found["terms_saved"] += "saved after step" in told
        found["term_seconds"] = round(max(found["term_seconds"], time.monotonic() - sent), 1)
    return True


def _make_room(name: str, folder: pathlib.Path) -> None:
    """Removes the classifiers that an evaluation kept before it was killed: it replaces none."""
    if TASKS[name][0] == "evaluate":
        for kept in folder.glob("*.keras"):
            kept.unlink()


def _await_checkpoint(process: subprocess.Popen, folder: pathlib.Path) -> None:
    """Waits until a command has saved its work, or has ended."""
    before = kept_positions(folder / "checkpoints")
    while process.poll() is None and kept_positions(folder / "checkpoints") == before:
        time.sleep(_POLL)


def _temporary(folder: pathlib.Path) -> set[str]:
    """Returns what is being written in a folder and its checkpoints, or was when it was killed."""
    found = set()
    for place in (folder, folder / "checkpoints"):
        with contextlib.suppress(FileNotFoundError):
            found |= {str(place / name) for name in os.listdir(place) if name.startswith(".")}
    return found


def differences(whole: pathlib.Path, cut: pathlib.Path) -> list[str]:
    """Returns what differs between the folders of two runs that must be the same.

    Args:
        whole: of the one that nobody killed.
        cut: of the one that was.
    """
    ours, theirs = dict(contents(whole)), dict(contents(cut))
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [name for name in names if ours.get(name) != theirs.get(name)]


def contents(
    folder: pathlib.Path, names: tuple[str, ...] = ("",), but: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields what the files of a folder hold: each variable, the rows of a table, other bytes.

    Args:
        folder: the folder.
        names: what the names of the files begin with.
        but: what the names of files begin with that are left out; empty for none.
    """
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or not name.startswith(names) or (but and name.startswith(but)):
            continue
        if path.parent.name.startswith(UNFINISHED):
            # Counted as left over.
            continue
        # TensorBoard begins a new file of events at every start, too.
        if "tensorboard" in name or path.name.startswith((".", "lock", "damaged-", _STARTS)):
            continue
        if path.suffix == ".index":
            yield from ((f"{name} {key}", held) for key, held in _variables(path))
        elif path.suffix == ".keras":
            yield from ((f"{name} {key}", held) for key, held in _members(path))
        elif path.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(path.read_text()))
            yield name, [_without_moments(row) for row in rows]
        elif path.suffix == ".json":
            yield name, _without_moments(json.loads(path.read_text()))
        elif not name.startswith("checkpoints"):
            yield name, path.read_bytes()


def _variables(index: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as place:
        # TensorFlow takes what stands in the names of folders for patterns.
        link = pathlib.Path(place) / "folder"
        link.symlink_to(index.parent.absolute())
        reader = tf.train.load_checkpoint(str(link / index.stem))
        for key in sorted(reader.get_variable_to_shape_map()):
            yield key, np.asarray(reader.get_tensor(key)).tobytes()


def _members(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    import h5py

    with zipfile.ZipFile(path) as opened:
        for member in opened.namelist():
            content = opened.read(member)
            if member.endswith(".h5"):
                with h5py.File(io.BytesIO(content)) as weights:
                    found: dict[str, Any] = {}
                    weights.visititems(found.__setitem__)
                    values = {
                        k: one[()].tobytes() for k, one in found.items() if hasattr(one, "dtype")
                    }
                yield from values.items()
            else:
                yield member, _without_moments(json.loads(content))


def _without_moments(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _without_moments(v) for k, v in tree.items() if k not in _MOMENTS}
    return [_without_moments(one) for one in tree] if isinstance(tree, list) else tree


def page(found: dict[str, Any]) -> str:
    """Returns the table of what was found, in Markdown.

    Args:
        found: as it is written to JSON.
    """
    columns = {
        "SIGKILL": "kills", "within a write": "kills_aimed", "SIGTERM": "terms",
        "saved": "terms_saved", "longest, s": "term_seconds", "fell back": "fallbacks",
        "ends": "runs", "files left over": "left",
    }  # fmt: skip
    rows = [
        [name, *(str(task[key]) for key in columns.values()),
         str(len(task["differences"])), str(len(task["unknown_ends"]))]
        for name, task in found["tasks"].items()
    ]  # fmt: skip
    text = table(["task", *columns, "differences", "unknown ends"], rows)
    commands = "".join(
        f"- {name}: `tfcq.{TASKS[name][0]} {' '.join(TASKS[name][1])}`; commit "
        f"{short(task['commit'])}\n"
        for name, task in found["tasks"].items()
    )
    return (
        "# Commands that were killed, against those that were not\n\n"
        f"{text}\n\n"
        "Ends: starts that came to an end, each compared with the undisturbed one to the last bit "
        "(checkpoints, networks, history but for `images_per_second`, records). Saved: SIGTERMs "
        "that came behind a step since the last save; an evaluation saves nothing and begins anew. "
        "Fell back: starts that found the newest checkpoint half moved to its place, and took the "
        "one before.\n\n"
        f"{commands}\n"
        f"- Command: `{found['command']}`\n- Seed: {found['seed']}\n- Machine: {found['machine']}, "
        "other work beside it\n"
    )


if __name__ == "__main__":
    main()
