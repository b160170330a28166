#!/usr/bin/env python3
"""Trains and evaluates flag files over seeds, and writes mean and spread at every bit-width.

    .venv/bin/python tools/evidence.py --name=digits \\
        --flagfiles=flags/simsiam.cfg,flags/ssql.cfg --seeds=0,1,2

Runs lie in `--runs`; one that has ended is not trained again, one that was cut off goes on. Writes
`results/NAME.json`, `.md` and `.png`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

from provenance import commit_here

from tfcq.evaluation.records import read_records
from tfcq.files import write_text
from tfcq.reporting.plots import plot_accuracy
from tfcq.reporting.tables import percent, table
from tfcq.settings.evaluation import PostTrainingSettings

COMMIT = "commit.txt"
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Runs what is missing and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of the files under results/")
    parser.add_argument("--flagfiles", required=True, help="comma-separated, the baseline first")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    parser.add_argument("--protocol", default="linear")
    parser.add_argument("train_flags", nargs="*", help="after --: further flags of tfcq.train")
    arguments = parser.parse_args()
    files, seeds = arguments.flagfiles.split(","), arguments.seeds.split(",")
    if len({pathlib.Path(file).stem for file in files}) < len(files):
        sys.exit("error: two flag files have the same name")
    results = {}
    for file in files:
        for seed in seeds:
            folder = (
                pathlib.Path(arguments.runs).resolve()
                / f"{arguments.name}_{pathlib.Path(file).stem}_{seed}"
            )
            train(file, seed, folder, arguments.train_flags)
            results.setdefault(pathlib.Path(file).stem, []).append(
                evaluate(folder, arguments.protocol)
            )
    summarize(arguments, files, seeds, results)


def train(file: str, seed: str, folder: pathlib.Path, flags: list[str]) -> None:
    """Trains a run to its end; a run that has ended is only checked to have these settings."""
    command = ["-m", "tfcq.train", f"--flagfile={file}", f"--seed={seed}", f"--run_dir={folder}"]
    subprocess.run([sys.executable, *command, *flags], check=True, cwd=ROOT)
    if not (folder / COMMIT).exists():
        write_text(folder / COMMIT, commit_here() + "\n")


def evaluate(folder: pathlib.Path, protocol: str) -> dict:
    """Returns the evaluation of a run as it was trained, without further steps, made if missing."""
    file = folder / "evaluation" / f"{protocol}.json"
    steps = {field.name for field in dataclasses.fields(PostTrainingSettings)}

    def plain() -> list[dict]:
        return [
            record
            for record in read_records(file)
            if record["policy"] == "as trained"
            and record["calibration"]["method"] == "minmax"
            and not steps & set(record["settings"])
        ]

    if not plain():
        command = ["-m", "tfcq.evaluate", f"--run_dir={folder}", f"--protocol={protocol}"]
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
    return {**plain()[0], "commit": (folder / COMMIT).read_text().strip()}


def spread(values: list[float]) -> float:
    """Returns the standard deviation of a sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def settings_of(file: str) -> list[str]:
    """Returns the flags of a flag file."""
    lines = (ROOT / file).read_text().splitlines()
    return [line for line in lines if line.startswith("--")]


def summarize(
    arguments: argparse.Namespace, files: list[str], seeds: list[str], results: dict
) -> None:
    """Writes JSON, Markdown and picture."""
    bits = [entry["bits"] for entry in next(iter(results.values()))[0]["results"]]
    for run in (run for runs in results.values() for run in runs):
        if [entry["bits"] for entry in run["results"]] != bits:
            sys.exit("error: the runs were evaluated at different bit-widths")
    top1 = {
        name: [[run["results"][i]["top1"] for run in runs] for i in range(len(bits))]
        for name, runs in results.items()
    }
    means = {name: [statistics.mean(v) for v in values] for name, values in top1.items()}
    spreads = {name: [spread(v) for v in values] for name, values in top1.items()}
    commit = ", ".join(dict.fromkeys(run["commit"] for runs in results.values() for run in runs))
    # Where the data lie on this machine tells a reader nothing.
    further = re.sub(r"(--data_dir)=\S+", r"\1=DIR", " ".join(arguments.train_flags))
    command = (
        f"tools/evidence.py --name={arguments.name} --flagfiles={arguments.flagfiles} "
        f"--seeds={arguments.seeds}" + (f" -- {further}" if further else "")
    )
    first = next(iter(results.values()))[0]
    about = {
        "command": command,
        "commit": commit,
        "seeds": seeds,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "versions": first["versions"],
        "budget": {file: [*settings_of(file), *further.split()] for file in files},
    }
    out = ROOT / "results" / arguments.name
    write_text(
        out.with_suffix(".json"),
        json.dumps(
            {**about, "bits": bits, "top1": top1, "mean": means, "spread": spreads}, indent=2
        )
        + "\n",
    )
    rows = [
        (
            name,
            *(
                percent(m) + (f" ± {percent(s)}" if len(seeds) > 1 else "")
                for m, s in zip(means[name], spreads[name], strict=True)
            ),
        )
        for name in results
    ]
    names = list(results)
    gains = [b - a for a, b in zip(means[names[0]], means[names[-1]], strict=True)]
    rows.append((f"{names[-1]} - {names[0]}", *(f"{100 * g:+.1f}" for g in gains)))
    lines = [
        f"# {arguments.name}: top-1 accuracy in percent, {arguments.protocol} probe",
        "",
        f"Mean and standard deviation over seeds {', '.join(seeds)}; "
        f"{first['train_images']} training images, {first['test_images']} test images.",
        "",
        table(("recipe", *bits), rows),
        "",
        f"![accuracy over bit-width]({arguments.name}.png)",
        "",
        f"- Command: `{command}`",
        f"- Commit: {commit}",
        f"- Machine: {about['machine']}",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in first['versions'].items())}",
        *(f"- `{file}`: {' '.join(flags)}" for file, flags in about["budget"].items()),
        "",
    ]
    write_text(out.with_suffix(".md"), "\n".join(lines))
    plot_accuracy(out.with_suffix(".png"), bits, means, spreads, arguments.name)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
