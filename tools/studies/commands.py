"""Commands of tfcq as a study runs them, and what it reads from a run."""

import csv
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from studies.study import ROOT

from tfcq.reporting.kernels import read_backbone
from tfcq.reporting.weights import weight_figures

Record = dict[str, Any]
CORRELATION = "error_correlation"


class Stopped(Exception):
    """Training could not go on: a figure of the study, in the words of the command."""


class Failed(Exception):
    """A command refused or failed, in its words."""


def command(name: str, *flags: str) -> None:
    """Runs a command of tfcq.

    Args:
        name: its name.
        *flags: its flags.

    Raises:
        Stopped: when it ended as a training that cannot go on does.
        Failed: when it refused or failed.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(ROOT)}
    words, last = [sys.executable, "-m", f"tfcq.{name}", *flags], ""
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except BaseException:
            process.terminate()
            raise
    if process.returncode < 0 or process.returncode > 128:
        sys.exit(f"tfcq.{name} was ended by a signal; the same command goes on.")
    if last.startswith("stopped: ") and process.returncode:
        raise Stopped(last.removeprefix("stopped: "))
    if process.returncode:
        raise Failed(last.removeprefix("error: "))


def evaluated(run: pathlib.Path, *flags: str) -> Record:
    """Scores a run and returns the record of it."""
    command("evaluate", *flags)
    files = (run / "evaluation").glob("*.json")
    found = json.loads(max(files, key=lambda file: file.stat().st_mtime_ns).read_text())
    asked = next(flag for flag in flags if flag.startswith("--bits=")).partition("=")[2].split(",")
    by_bits = {one["bits"]: one for one in found["results"]}
    if missing := [bits for bits in asked if bits not in by_bits]:
        raise Failed(f"No figures at {', '.join(missing)} in the record of {run.name}.")
    found["results"] = [by_bits[bits] for bits in asked]
    return found


def top1(found: Record) -> dict[str, float]:
    """Returns top-1 accuracy by bit-width."""
    return {one["bits"]: one["top1"] for one in found["results"]}


def curves(found: Record) -> dict[str, list[float]]:
    """Returns top-1 accuracy after each epoch of a protocol's training, by bit-width."""
    return {
        one["bits"]: [round(point["top1"], 4) for point in one["curve"]] for one in found["results"]
    }


def about_run(run: pathlib.Path) -> Record:
    """Returns what a record has of a trained run: its weights, and errors where they were measured.

    Args:
        run: folder of the run.
    """
    kernels = read_backbone(run / "backbone.keras").kernels.values()
    figures = [weight_statistics(kernel.astype(np.float64)) for kernel in kernels]
    about: Record = {
        "weights": {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
    }
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if CORRELATION in rows[0]:
        about[CORRELATION] = [round(float(row[CORRELATION]), 4) for row in rows]
    return about


def weight_statistics(kernel: np.ndarray) -> dict[str, float]:
    """Returns how heavy the tails of a kernel are.

    Args:
        kernel: the weights.

    Returns:
        Kurtosis (3 of a normal distribution), largest weight over standard deviation, and the share
        of weights beyond three standard deviations (0.0027 of a normal distribution).
    """
    centred, figures = kernel - kernel.mean(), weight_figures(kernel)
    return {
        "kurtosis": float(np.mean(centred**4) / np.mean(centred**2) ** 2),
        "largest": float(np.abs(kernel).max() / figures.deviation),
        "outliers": figures.outliers,
    }


def data(folder: str | None, flags: Sequence[str]) -> list[str]:
    """Returns the flag of prepared data, where the last data set named is no embedded one.

    Args:
        folder: of the prepared data sets, if there is one.
        flags: those of training and command, in the order in which they count.
    """
    names = [flag for flag in flags if flag.startswith("--dataset=")]
    embedded = not names or names[-1] == "--dataset=digits"
    return [] if embedded or folder is None else [f"--data_dir={folder}"]
