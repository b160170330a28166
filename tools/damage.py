#!/usr/bin/env python3
"""Damages each file of a run in turn, and sees what becomes of the commands that read it.

    .venv/bin/python tools/damage.py --output=results/damage

Two folders: a run that was cut off, which is resumed, scored by its newest checkpoint and reported;
and one that ended, with an evaluation, a kept classifier and an export, which is trained again
(nothing is left to do), evaluated, exported and reported. Each file is cut to nothing, half and one
byte less, filled with zeros, deleted, and has single bits flipped, in the beginning, the end and
anywhere. A command runs where it opens the file, and always where the file is deleted.
What it made is compared with what it makes of the undamaged folder, to the last bit. All in one
process, and in eager mode. Writes `.json` and `.md`.
"""

import argparse
import collections
import contextlib
import gc
import io
import json
import os
import pathlib
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from chaos import contents
from provenance import commit_here, short

from tfcq import evaluate, export, report, train
from tfcq.errors import TrainingStopped, UserError
from tfcq.files import write_text
from tfcq.reporting.tables import table

RUN = (
    "--dataset=digits", "--train_images=64", "--backbone=cifar_resnet8", "--width=2",
    "--projection_width=8", "--predictor_width=8", "--batch_size=32", "--duration=5steps",
    "--save_every=1steps", "--deterministic", "--seed=3",
)  # fmt: skip
# Of its five steps, two an epoch.
CUT_AFTER, _LATEST = 4, "ckpt-2."
_SCORED = ("--protocol=knn", "--bits=fp,4w4a", "--test_images=64")
_TUNED = (
    "--protocol=finetune", "--bits=4w4a", "--epochs=1", "--learning_rate_schedule=cosine",
    "--batch_size=32", "--test_images=64", "--keep_classifiers",
)  # fmt: skip
_CHECKED = ("--images=32", "--min_agreement=0")
COMMANDS: dict[str, dict[str, tuple[Any, tuple[str, ...]]]] = {
    "cut off": {
        "train": (train, ("--run_dir=RUN",)),
        "evaluate": (evaluate, ("--run_dir=RUN", "--checkpoint=latest", *_SCORED)),
        "report": (report, ("RUN", "--output=RUN.report", "--tsne_bits=")),
    },
    "ended": {
        "train": (train, ("--run_dir=RUN",)),
        "evaluate": (evaluate, ("--run_dir=RUN", *_SCORED)),
        "export": (export, ("--run_dir=RUN", *_CHECKED)),
        "report": (report, ("RUN", "--output=RUN.report", "--tsne_bits=")),
    },
}
FLIPS = 10
# Words by which a command says that something was not as it should be.
_TOLD = ("cannot be restored", "is gone", "is damaged", "begins anew", "No history", "no backbone")
REFUSED, TOLD, EQUAL = "refused in a line", "told, and went on", "equal"
TEXT = "a text's figure taken as it stands"
# A file that was deleted, which nobody missed, and no other damage.
_UNREAD = {EQUAL: 1}
FAULTS = WEIGHTS, RESTART, OTHER, TRACEBACK = (
    "silently other weights", "silent restart", "silently other results", "traceback",
)  # fmt: skip


def main() -> None:
    """Tries all damages and writes what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the flipped bits")
    parser.add_argument("--flips", type=int, default=FLIPS, help="flipped bits of each file")
    parser.add_argument("--only", default="", help="files with this in their name; others stay")
    parser.add_argument("--output", help="where .json and .md are written")
    arguments = parser.parse_args()
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    earlier: dict[str, Any] = {"runs": [], "rows": []}
    if arguments.only and pathlib.Path(f"{arguments.output}.json").exists():
        earlier = json.loads(pathlib.Path(f"{arguments.output}.json").read_text())
    rows = [row for row in earlier["rows"] if arguments.only not in row["file"]]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        for state in COMMANDS:
            rows += tried(state, pathlib.Path(place), arguments)
    only = f" --only={arguments.only}" if arguments.only else ""
    run = {
        "command": f"tools/damage.py --flips={arguments.flips} --seed={arguments.seed}{only}",
        "commit": commit_here(),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    found = {
        "runs": [*earlier["runs"], run],
        "seed": arguments.seed,
        "cases": len({(row["state"], row["file"], row["damage"]) for row in rows}),
        "commands": len(rows),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "outcomes": dict(collections.Counter(row["outcome"] for row in rows)),
        "faults": [row for row in rows if row["outcome"] in FAULTS],
        "rows": rows,
    }
    if arguments.output:
        write_text(f"{arguments.output}.json", json.dumps(found, indent=1) + "\n")
        write_text(f"{arguments.output}.md", page(found))
    print(json.dumps({name: found[name] for name in ("cases", "commands", "outcomes", "faults")}))
    sys.exit(bool(found["faults"]))


def damages(content: bytes, flips: int, seed: str) -> Iterator[tuple[str, bytes | None]]:
    """Yields the name and the result of each damage of a file; None for one that is deleted.

    Args:
        content: of the file.
        flips: how many single bits are flipped, one at a time: a third each among the first and the
            last 256 bytes and anywhere.
        seed: of their places.
    """
    yield "deleted", None
    seen = {content}
    for name, damaged in (
        ("empty", b""), ("half", content[: len(content) // 2]), ("one byte less", content[:-1]),
        ("zeros", bytes(len(content))),
    ):  # fmt: skip
        if damaged not in seen:
            seen.add(damaged)
            yield name, damaged
    draw = random.Random(seed)
    size = len(content)
    for number in range(flips if size else 0):
        first, last = ((0, min(256, size)), (max(0, size - 256), size), (0, size))[number % 3]
        place, bit = draw.randrange(first, last), draw.randrange(8)
        flipped = bytes([content[place] ^ 1 << bit])
        yield f"bit {bit} of byte {place}", content[:place] + flipped + content[place + 1 :]


def tried(
    state: str, place: pathlib.Path, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yields what each command made of each damage.

    Args:
        state: of the run, a key of `COMMANDS`.
        place: for the folders.
        arguments: those of the tool.
    """
    sound, folder = place / f"{state} sound", place / "RUN"
    make_run(sound, state == "ended")
    expected, opened = {}, {}
    for name in COMMANDS[state]:
        _copy(sound, folder)
        with _opened(folder) as opened[name]:
            expected[name] = _done(state, name, folder)
        assert expected[name][0] is None, expected[name]
    for file in sorted(path for path in sound.rglob("*") if path.is_file()):
        within = file.relative_to(sound)
        if arguments.only not in str(within):
            continue
        seed = f"{arguments.seed} {state} {within}"
        for damage, content in damages(file.read_bytes(), arguments.flips, seed):
            for name in COMMANDS[state]:
                if content is not None and not _reads(state, name, within, opened[name]):
                    continue
                _copy(sound, folder)
                (folder / within).unlink()
                if content is not None:
                    (folder / within).write_bytes(content)
                got = _done(state, name, folder, within, content)
                outcome, told = judged(name, within, expected[name], got)
                yield {
                    "state": state, "file": str(within), "damage": damage, "command": name,
                    "outcome": outcome, "told": told.replace(str(folder), "RUN"),
                }  # fmt: skip
        print(f"{time.process_time():.0f} s, {state}: {within}", flush=True)


def _reads(state: str, name: str, within: pathlib.Path, opened: set[str]) -> bool:
    # TensorFlow reads checkpoints past Python; `latest` is scored alone.
    latest = (state, name) == ("cut off", "evaluate") and within.name.startswith(_LATEST)
    past = within.parts[0] == "checkpoints" and (name == "train" or latest)
    return past or str(within) in opened


def make_run(folder: pathlib.Path, ended: bool) -> None:
    """Makes the folder of a run, with what commands write into it.

    Args:
        folder: the folder.
        ended: whether it comes to its end, is evaluated and exported.
    """
    from tfcq.training.history import Progress

    step = Progress.on_train_batch_end

    def step_or_end(self: Progress, batch: int, logs: Any = None) -> None:
        step(self, batch, logs)
        if self.done > CUT_AFTER:
            raise KeyboardInterrupt

    if not ended:
        Progress.on_train_batch_end = step_or_end  # type: ignore[method-assign]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _run(train, (f"--run_dir={folder}", *RUN))
    finally:
        Progress.on_train_batch_end = step  # type: ignore[method-assign]
    if ended:
        own = f"--run_dir={folder}"
        _run(evaluate, (own, *_SCORED))
        _run(evaluate, (own, *_TUNED))
        _run(export, (own, *_CHECKED))


def _run(module: Any, arguments: tuple[str, ...]) -> str:
    """Runs a command in this process and returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        module.main(module.flag_set().parse([*arguments]))
    return printed.getvalue()


_FOLLOWED: list[set[str]] = []


def _follow(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _FOLLOWED and isinstance(arguments[0], (str, os.PathLike)):
        _FOLLOWED[-1].add(os.fspath(arguments[0]))


sys.addaudithook(_follow)


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[set[str]]:
    """Collects which files of a folder are opened within."""
    names: set[str] = set()
    _FOLLOWED.append(set())
    try:
        yield names
    finally:
        starts = f"{folder}{os.sep}"
        names |= {p.removeprefix(starts) for p in _FOLLOWED.pop() if p.startswith(starts)}


def _copy(sound: pathlib.Path, folder: pathlib.Path) -> None:
    for left in (folder, folder.with_name(f"{folder.name}.report")):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(sound, folder)


Done = tuple[str | None, str, dict[str, Any]]


def _done(
    state: str,
    name: str,
    folder: pathlib.Path,
    within: pathlib.Path = pathlib.Path(),
    damaged: bytes | None = None,
) -> Done:
    """Returns the kind of error or None, what was told, and what was made.

    What was damaged is nothing that was made, unless it was written anew.
    """
    import keras

    module, flags = COMMANDS[state][name]
    # Or else each command would be slower than the one before.
    keras.backend.clear_session()
    gc.collect()
    try:
        told = _run(module, tuple(flag.replace("RUN", str(folder)) for flag in flags))
    except (UserError, OSError, TrainingStopped) as error:
        return REFUSED, str(error), {}
    except SystemExit as error:
        return (None if not error.code else REFUSED), str(error), {}
    except Exception as error:
        places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        own = [one for one in places if "/tfcq/" in one] or places
        return TRACEBACK, f"{own[-1].rpartition('/tfcq/')[2]} {error!r}"[:300], {}
    file = folder / within
    stays = (file.read_bytes() if file.is_file() else None) == damaged
    return None, told, MADE[name](folder, part_of(within) if stays else "")


def part_of(within: pathlib.Path) -> str:
    """Returns what the names begin with of all that cannot be read without a file.

    Args:
        within: path of the file in the folder.
    """
    whole = str(within)
    return whole.rpartition(".")[0] + "." if within.parts[:1] == ("checkpoints",) else whole


def _trained(folder: pathlib.Path, but: str) -> dict[str, Any]:
    """Returns what training leaves: networks, checkpoints, history."""
    found = dict(contents(folder, ("backbone.keras", "checkpoints", "history.csv"), but))
    # It holds names that count the models of the process.
    return {name: one for name, one in found.items() if not name.endswith("OBJECT_GRAPH")}


def _evaluated(folder: pathlib.Path, but: str) -> dict[str, Any]:
    record = json.loads((folder / "evaluation" / "knn.json").read_text())
    return {"record": {k: v for k, v in record.items() if k not in ("earlier", "seconds")}}


def _exported(folder: pathlib.Path, but: str) -> dict[str, Any]:
    figures = json.loads((folder / "export" / "int8.json").read_text())
    kept = {k: v for k, v in figures.items() if "milliseconds" not in k}
    files = {one: (folder / "export" / one).read_bytes() for one in ("int8.tflite", "float.tflite")}
    return {"figures": kept, **files}


def _reported(folder: pathlib.Path, but: str) -> dict[str, Any]:
    return {"text": (folder.with_name(f"{folder.name}.report") / "report.md").read_text()}


MADE: dict[str, Callable[[pathlib.Path, str], dict[str, Any]]] = {
    "train": _trained, "evaluate": _evaluated, "export": _exported, "report": _reported,
}  # fmt: skip


def _warnings(done: Done) -> list[str]:
    """Returns the lines, also of a report, that say that something was not as it should be."""
    lines = f"{done[1]}\n{done[2].get('text', '')}".splitlines()
    return [line for line in lines if any(word in line for word in _TOLD)]


def judged(name: str, within: pathlib.Path, expected: Done, got: Done) -> tuple[str, str]:
    """Returns how a command fared, and the line that says so.

    Args:
        name: the command.
        within: path of the file that was damaged, in the folder.
        expected: what is made of the undamaged folder.
        got: what was made.
    """
    kind, told, made = got
    if kind is not None:
        return kind, " ".join(told.split())[:300]
    line = next((one for one in _warnings(got) if one not in _warnings(expected)), "")
    other = [key for key, value in expected[2].items() if made.get(key) != value]
    # Nor is it missed where it stays as it was damaged, or away.
    other = [one for one in other if one in made or not one.startswith(part_of(within))]
    if any(".keras" in key or "ckpt-" in key or "tflite" in key for key in other):
        return WEIGHTS, ", ".join(other)[:300]
    if "epochs 0 to" in told and "epochs 0 to" not in expected[1] and not line:
        return RESTART, ""
    if line:
        return TOLD, line[:300]
    if not other:
        return EQUAL, ""
    return (TEXT if within.suffix in (".json", ".csv") else OTHER), ", ".join(other)[:300]


def page(found: dict[str, Any]) -> str:
    """Returns the tables of what was found, in Markdown.

    Args:
        found: as it is written to JSON.
    """
    outcomes = (EQUAL, TOLD, REFUSED, TEXT, *FAULTS)
    shown = [one for one in outcomes if found["outcomes"].get(one)]
    parts = []
    for state in COMMANDS:
        counts: dict[tuple[str, str], collections.Counter] = {}
        for row in found["rows"]:
            if row["state"] == state:
                key = row["file"], row["command"]
                counts.setdefault(key, collections.Counter())[row["outcome"]] += 1
        rows = [
            [f"`{file}`", command, *(str(count[one] or "") for one in shown)]
            for (file, command), count in counts.items()
            if count != _UNREAD
        ]
        unread = sum(count == _UNREAD for count in counts.values())
        parts.append(f"## A run that {'has ' if state == 'ended' else 'was '}{state}\n\n")
        parts.append(table(["file", "command", *shown], rows) + "\n\n")
        parts.append(
            f"{unread} pairs of a file and a command are left out here: the command does not read "
            "the file, and made the same without it.\n\n"
        )
    runs = "".join(
        f"- Command: `{run['command']}`, commit {short(run['commit'])}, {run['minutes']} minutes\n"
        for run in found["runs"]
    )
    total = ", ".join(f"{found['outcomes'].get(one, 0):,} {one}" for one in outcomes)
    return (
        "# Damaged files of a run\n\n"
        f"{found['cases']:,} damages of single files, {found['commands']:,} commands: {total}.\n\n"
        "Equal: what was made is that of the undamaged folder, to the last bit. A text's figure "
        "taken as it stands: a bit flipped in a number or a name of a history or a record, which "
        "are texts without checksums, for people to read and edit.\n\n"
        f"{''.join(parts)}"
        f"{runs}- Seed: {found['seed']}\n"
        f"- Machine: {found['machine']}, other work beside it\n"
    )


if __name__ == "__main__":
    main()
