#!/usr/bin/env python3
"""Trains every framework with the main recipes on the digits, one seed each, and tables accuracy.

    .venv/bin/python tools/digits_grid.py

All backbones are evaluated under one policy, whatever they were trained with. Runs lie in `--runs`;
one that has ended is not trained again, one that was cut off goes on. Writes `results/NAME.json`
and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys

from provenance import commit_here

from tfcq.files import write_text
from tfcq.reporting.tables import percent, table
from tfcq.settings.recipes import recipe_named

ROOT = pathlib.Path(__file__).resolve().parent.parent
HIDDEN, PREDICTOR = "--projection_hidden=256", "--predictor_width=256"
HEADS = {
    "simsiam": [PREDICTOR],
    "simclr": [HIDDEN],
    "byol": [HIDDEN, PREDICTOR],
    "mocov2": [HIDDEN, "--queue_size=1024"],
    "mocov3": [HIDDEN, PREDICTOR],
}
RECIPES = ("float", "ssql", "cq_a", "cq_b", "cq_c", "cq_quant")
VIEWS = ["--crop_area=0.4-1", "--flip=0"]
SETTINGS = [
    "--dataset=digits",
    "--width=16",
    "--projection_width=256",
    "--batch_size=32",
    "--learning_rate=0.02",
    "--weight_decay=1e-4",
]


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="digits_grid", help="name of the files under results/")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", default="fp,4w4a,2w4a")
    parser.add_argument("--policy", default="paper", help="how every backbone is quantized")
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    arguments = parser.parse_args()
    results = [
        {"framework": framework, "recipe": recipe, **top1(framework, recipe, arguments)}
        for framework in HEADS
        for recipe in RECIPES
    ]
    bits = arguments.bits.split(",")
    rows = [
        (f"{r['framework']}, {r['recipe']}", *(percent(r["top1"][b]) for b in bits))
        for r in results
    ]
    commit = commit_here()
    command = (
        f"tools/digits_grid.py --epochs={arguments.epochs} --seed={arguments.seed} "
        f"--bits={arguments.bits} --policy={arguments.policy}"
    )
    about = {
        "command": command,
        "commit": commit,
        "seed": arguments.seed,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "settings": [*VIEWS, *SETTINGS, f"--epochs={arguments.epochs}"],
        "heads": HEADS,
    }
    out = ROOT / "results" / arguments.name
    write_text(out.with_suffix(".json"), json.dumps({**about, "results": results}, indent=2) + "\n")
    lines = [
        "# Digits: frameworks and recipes, top-1 accuracy in percent, linear probe",
        "",
        f"One seed ({arguments.seed}), {arguments.epochs} epochs; every backbone quantized by "
        f"policy `{arguments.policy}`.",
        "",
        table(("framework, recipe", *bits), rows),
        "",
        f"- Command: `{command}`",
        f"- Commit: {commit}",
        f"- Machine: {about['machine']}",
        f"- Settings: `{' '.join(about['settings'])}`",
        "",
    ]
    write_text(out.with_suffix(".md"), "\n".join(lines))
    print("\n".join(lines))


def top1(framework: str, recipe: str, arguments: argparse.Namespace) -> dict:
    """Trains and evaluates one combination; returns its accuracies."""
    folder = pathlib.Path(arguments.runs).resolve() / f"{arguments.name}_{framework}_{recipe}"
    run(
        "tfcq.train",
        f"--run_dir={folder}",
        f"--framework={framework}",
        f"--recipe={recipe}",
        f"--epochs={arguments.epochs}",
        f"--seed={arguments.seed}",
        # A recipe of images that are not augmented has no use for these.
        *(VIEWS if set(recipe_named(recipe).views) != {0} else []),
        *SETTINGS,
        *HEADS[framework],
    )
    file = folder / "evaluation" / "linear.json"
    if not file.exists():
        run(
            "tfcq.evaluate",
            f"--run_dir={folder}",
            f"--policy={arguments.policy}",
            f"--bits={arguments.bits}",
        )
    found = json.loads(file.read_text())
    top1 = {entry["bits"]: entry["top1"] for entry in found["results"]}
    if found["policy"] != arguments.policy or list(top1) != arguments.bits.split(","):
        sys.exit(f"error: {file} was evaluated otherwise; remove it")
    return {"top1": top1}


def run(module: str, *flags: str) -> None:
    """Runs a command of tfcq."""
    subprocess.run([sys.executable, "-m", module, *flags], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
