#!/usr/bin/env python3
"""Compares starts of a detector over seeds: from scratch, and from pre-trainings of one budget.

    .venv/bin/python tools/detection_study.py --name=detection --detector=faster_rcnn \\
        --starts=none,simsiam_float,simsiam_ssql --seeds=0,1,2

Each seed pre-trains on the items of the scenes, digits at 64 pixels, trains the detector on
scenes and scores it at every bit-width. What `results/NAME.json` has is not done again, and what
a stop left in the runs' folder goes on. Writes that file and `results/NAME.md`: mean and sample
standard deviation over seeds.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from provenance import commit_here, short

from tfcq.files import write_text
from tfcq.reporting.tables import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Flags of each pre-training beside the common ones.
STARTS = {
    "simsiam_float": ["--framework=simsiam", "--recipe=float"],
    "simsiam_ssql": ["--framework=simsiam", "--recipe=ssql"],
    "simclr_float": ["--framework=simclr", "--recipe=float"],
    "simclr_cq_a": ["--framework=simclr", "--recipe=cq_a"],
}
NONE = "none"
COMMON = [
    "--dataset=digits", "--image_size=64", "--stem=imagenet", "--width=16", "--batch_size=128",
    "--zero_init_residual=false",
]  # fmt: skip
FORMS = {"coco": "COCO", "voc07": "VOC07", "coco_masks": "COCO masks"}
FIGURES = ("AP", "AP50", "AP75")


def main() -> None:
    """Runs what is missing and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="detection")
    parser.add_argument("--detector", default="faster_rcnn")
    parser.add_argument("--starts", default=f"{NONE},simsiam_float,simsiam_ssql")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pretraining_epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--bits", default="fp,8w8a,6w6a,5w5a,4w4a")
    parser.add_argument("--runs", default="runs/detection_study", help="folder of the runs")
    arguments = parser.parse_args()
    runs = pathlib.Path(arguments.runs).resolve()
    starts, seeds = arguments.starts.split(","), arguments.seeds.split(",")
    pretrained = [name for name in starts if name != NONE]
    if not pretrained or not set(pretrained) <= set(STARTS):
        parser.error(
            f"--starts={arguments.starts}; allowed: {NONE}, {', '.join(STARTS)}, one of "
            "the latter at least"
        )
    found = earlier(arguments)
    for seed in seeds:
        for start in starts:
            if any(record["seed"] == seed for record in found.get(start, ())):
                continue
            # Random weights need a network all the same: that of the first pre-training.
            named = start if start != NONE else pretrained[0]
            run = runs / f"{named}_{seed}"
            pretrain(run, named, seed, arguments.pretraining_epochs)
            record = detect(run, start, seed, arguments)
            found.setdefault(start, []).append({"seed": seed, **record})
            print(start, seed, json.dumps(record["results"])[:300], flush=True)
            report(arguments, found)


def earlier(arguments: argparse.Namespace) -> dict[str, list[dict]]:
    """Returns what was measured with the same settings, by start."""
    file = ROOT / "results" / f"{arguments.name}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    if kept and kept["settings"] != settings(arguments):
        sys.exit(f"error: {file} has other settings, {kept['settings']}; give another --name.")
    return kept.get("starts", {})


def settings(arguments: argparse.Namespace) -> dict[str, str | int]:
    """Returns what decides a figure, by name."""
    names = ("detector", "pretraining_epochs", "epochs", "bits")
    return {name: getattr(arguments, name) for name in names}


def pretrain(run: pathlib.Path, start: str, seed: str, epochs: int) -> None:
    """Pre-trains a backbone, unless that has been done."""
    if not (run / "backbone.keras").exists():
        flags = [*COMMON, *STARTS[start], f"--epochs={epochs}", f"--seed={seed}"]
        command("train", *flags, f"--run_dir={run}")


def detect(run: pathlib.Path, start: str, seed: str, arguments: argparse.Namespace) -> dict:
    """Trains and scores a detector, unless that has been done; returns its record."""
    folder = run / "detection" / f"{arguments.detector}_{'scratch' if start == NONE else 'start'}"
    file = folder / "finetune.json"
    done = {e["bits"] for e in json.loads(file.read_text())["results"]} if file.exists() else set()
    if not set(arguments.bits.split(",")) <= done:
        command(
            "detect", f"--run_dir={run}", "--flagfile=flags/detection/scenes.cfg",
            f"--detector={arguments.detector}", f"--epochs={arguments.epochs}", f"--seed={seed}",
            f"--bits={arguments.bits}", f"--output_dir={folder}",
            *(["--from_scratch"] if start == NONE else []),
        )  # fmt: skip
    record = json.loads(file.read_text())
    if "commit" not in record:
        record["commit"] = commit_here()
        write_text(file, json.dumps(record, indent=2) + "\n")
    return record


def command(name: str, *flags: str) -> None:
    """Runs a command of tfcq."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", f"tfcq.{name}", *flags], cwd=ROOT, env=environment, check=True
    )


def report(arguments: argparse.Namespace, found: dict[str, list[dict]]) -> None:
    """Writes JSON and Markdown of what is there so far."""
    first = next(iter(found.values()))[0]["results"]
    bits, forms = [entry["bits"] for entry in first], [form for form in FORMS if form in first[0]]
    tables = []
    for form in forms:
        for figure in FIGURES:
            rows = [
                (
                    f"{start} ({len(records)})",
                    *(
                        spread([record["results"][n][form][figure] for record in records])
                        for n in range(len(bits))
                    ),
                )
                for start, records in found.items()
            ]
            tables.append(table((f"{FORMS[form]} {figure}", *bits), rows))
    about = {
        "settings": settings(arguments),
        "command": f"tools/detection_study.py --name={arguments.name} --detector="
        f"{arguments.detector} --starts={arguments.starts} --seeds={arguments.seeds} "
        f"--pretraining_epochs={arguments.pretraining_epochs} --epochs={arguments.epochs} "
        f"--bits={arguments.bits}",
        "commits": sorted(
            {short(record["commit"]) for several in found.values() for record in several}
        ),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
    }
    page = "\n\n".join(
        [
            f"# {arguments.detector} on scenes of digits, from several starts",
            "Mean and sample standard deviation over the seeds in brackets, in percent; 4,000 "
            "training scenes of 96 x 96 pixels, 500 test scenes, 10 classes, quantized after "
            f"training. A pre-training has {arguments.pretraining_epochs} epochs of 1,437 digits "
            "at 64 x 64; `none` begins with random weights.",
            *tables,
            f"- Command: `{about['command']}`\n- Commit: {', '.join(about['commits'])}\n"
            f"- Machine: {about['machine']}",
        ]
    )
    write_text(ROOT / "results" / f"{arguments.name}.md", page + "\n")
    kept = {
        start: [
            {k: record[k] for k in ("seed", "results", "commit", "weights", "versions")}
            for record in records
        ]
        for start, records in found.items()
    }
    text = json.dumps({**about, "starts": kept}, indent=2)
    write_text(ROOT / "results" / f"{arguments.name}.json", text + "\n")


def spread(values: list[float]) -> str:
    """Returns mean and sample standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
