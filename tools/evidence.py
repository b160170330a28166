#!/usr/bin/env python3
"""Trains and scores what a study file names, seed by seed, and writes a page of what is found.

    .venv/bin/python tools/evidence.py tools/studies/ssql_simsiam.toml --data_dir=DIR

Every row of the study is trained with a seed before the next seed begins, so that each stop leaves
whole pairs. A row and seed that has ended is a record in `results/NAME.json` at once and is not
done again; one that was cut off goes on from `--runs`. Beside the JSON stand `results/NAME.md` and
its pictures. The same command in a second process takes what the first is not at: two studies of
small images, each pinned to a core of two (`taskset --cpu-list 0`), make 1.4 times the images a
second of one on both.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator

from provenance import commit_here
from studies.commands import (
    Failed,
    Record,
    Stopped,
    about_run,
    command,
    curves,
    data,
    evaluated,
    top1,
)
from studies.page import write_page
from studies.records import add, check_settings, earlier, recorded
from studies.study import ROOT, Row, Study, read_study

from tfcq.errors import UserError, unknown_choice
from tfcq.files import alone_in, write_text


def main() -> None:
    """Does what is missing of a study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=pathlib.Path, help="such as tools/studies/NAME.toml")
    parser.add_argument("--runs", default="runs", help="folder of the runs [runs]")
    parser.add_argument("--data_dir", help="folder of prepared TFDS data sets")
    parser.add_argument("--seed", type=int, help="of the study's seeds this one alone")
    parser.add_argument("--keep_runs", action="store_true", help="leave runs that are recorded")
    arguments = parser.parse_args()
    # Or else a command that is at work would go on by itself.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        carry_out(read_study(arguments.study), arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def carry_out(study: Study, arguments: argparse.Namespace) -> None:
    """Does what is missing, and writes records and page after each row and seed.

    Args:
        study: the study.
        arguments: those of the command line.

    Raises:
        UserError: when there are records of other settings, or the seed is none of the study's.
    """
    if arguments.seed not in (None, *study.seeds):
        raise unknown_choice("--seed", str(arguments.seed), map(str, study.seeds))
    seeds = study.seeds if arguments.seed is None else (arguments.seed,)
    out, runs = ROOT / "results" / study.name, pathlib.Path(arguments.runs)
    failed: dict[str, str] = {}
    for seed, row in itertools.product(seeds, study.rows):
        run = place(study, row, seed, runs)
        with claimed(run) as free:
            if not free or row.name in failed:
                continue
            if recorded(out, study, row, seed):
                # Of a process that was ended between both.
                if not arguments.keep_runs:
                    clear(study, row, seed, runs)
                continue
            print(f"{study.name}: {row.name}, seed {seed}", flush=True)
            try:
                record = measured(study, row, seed, arguments)
            except Failed as error:
                failed[row.name] = f"seed {seed}: {error}"
                continue
            with alone_in(out.parent):
                add(out, study, record, failed)
            if not arguments.keep_runs:
                clear(study, row, seed, runs)
    with alone_in(out.parent):
        write_page(out, study, earlier(out.with_suffix(".json"), study), failed)
    if failed:
        raise UserError("; ".join(f"{name}, {line}" for name, line in failed.items()))


@contextlib.contextmanager
def claimed(run: pathlib.Path) -> Iterator[bool]:
    """Keeps a run to this process; gives whether it was free.

    Args:
        run: the folder of the run, beside which the lock stands.
    """
    file = run.with_name(f"{run.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def place(study: Study, row: Row, seed: int, runs: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run; with `.json` it is where its record begins."""
    return runs.resolve() / f"{study.name}_{row.slug}_{seed}"


def measured(study: Study, row: Row, seed: int, arguments: argparse.Namespace) -> Record:
    """Trains and scores a row, or goes on with it, and returns its record.

    Args:
        study: the study.
        row: the row.
        seed: the seed.
        arguments: those of the command line.

    Raises:
        UserError: when its run was begun with other settings.
        Failed: when a command refuses or fails.
    """
    run = place(study, row, seed, pathlib.Path(arguments.runs))
    file = run.with_suffix(".json")
    record: Record = {"row": row.name, "seed": seed, "settings": study.settings(row)}
    record |= {"commits": [], "seconds": 0.0, "scores": {}, "curves": {}, "followed": {}}
    record |= {"stopped": {}, "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}"}
    if file.exists():
        record = json.loads(file.read_text())
        now, then = study.settings(row), record["settings"]
        # What has not been scored yet may be scored otherwise.
        scored = record["scores"].keys() | record["stopped"].keys()
        if study.followed and record["followed"]:
            scored |= {study.followed.protocol}
        for name in now["scoring"].keys() - scored:
            then["scoring"][name] = now["scoring"][name]
        check_settings(record, study, row, file)
    common, flags = [f"--run_dir={run}", f"--seed={seed}"], study.training(row)

    def score(*own: str) -> Record:
        return evaluated(run, *own, *common, *data(arguments.data_dir, [*flags, *own]))

    if "weights" not in record and "training" not in record["stopped"]:
        with noted(record, "training", file):
            command("train", *flags, *common, *data(arguments.data_dir, flags))
            record |= about_run(run)
    if "training" in record["stopped"]:
        return record
    for epoch in study.followed.epochs if study.followed else ():
        part = f"epoch {epoch}"
        if str(epoch) not in record["followed"] and part not in record["stopped"]:
            with noted(record, part, file):
                if not (run / "checkpoints" / f"ckpt-{epoch}.index").exists():
                    raise Stopped("not scored, its checkpoint is gone")
                found = score(*study.following(epoch))
                record["followed"][str(epoch)] = top1(found)
    for name, protocol in study.protocols.items():
        if name in record["scores"] or name in record["stopped"]:
            continue
        with noted(record, name, file):
            found = score(*study.scoring(row, name))
            record["scores"][name], record["versions"] = top1(found), found["versions"]
            if protocol.learning_curve:
                record["curves"][name] = curves(found)
    return record


@contextlib.contextmanager
def noted(record: Record, part: str, file: pathlib.Path) -> Iterator[None]:
    """Within, a part of a record is made; then time, what stopped it and all so far are kept.

    Args:
        record: the record.
        part: what is made.
        file: where the record is kept until it is whole.
    """
    begin, before = time.monotonic(), file.read_text() if file.exists() else None
    record["commits"] = sorted({*record["commits"], commit_here()})
    # Or else a training that is killed would leave no word of the code that began it.
    write_text(file, json.dumps(record) + "\n")

    def keep() -> None:
        record["seconds"] = round(record["seconds"] + time.monotonic() - begin, 1)
        write_text(file, json.dumps(record) + "\n")

    try:
        yield
    except Stopped as error:
        record["stopped"][part] = str(error)
    except Failed:
        # As before, so that its flags can be mended.
        file.unlink() if before is None else write_text(file, before)
        raise
    except BaseException:
        keep()
        raise
    keep()


def clear(study: Study, row: Row, seed: int, runs: pathlib.Path) -> None:
    """Removes what is recorded of a run; of the first seed what tfcq.report draws is left.

    Args:
        study: the study.
        row: the row.
        seed: the seed.
        runs: folder of the runs.
    """
    run = place(study, row, seed, runs)
    first = seed == study.seeds[0]
    for folder in [run / "checkpoints", run / "tensorboard"] if first else [run]:
        shutil.rmtree(folder, ignore_errors=True)
    run.with_suffix(".json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
