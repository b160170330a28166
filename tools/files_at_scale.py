#!/usr/bin/env python3
"""Measures start-up on many image files, and how far shuffling moves images.

    .venv/bin/python tools/files_at_scale.py --output=results/files

Start-up is `python -m tfcq.train --dataset=folder:PATH --preview`, from its start to the end of its
process, which has read a first batch by then: on 60,000 JPEG and PNG files, and on 1,000,000 names
of the same (hard links). With `--before=FOLDER`, a checkout of another commit, also there. Files
lie in a temporary folder. Writes `.json` and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image
from provenance import ROOT, commit_here, short

from tfcq.files import write_text
from tfcq.reporting.tables import table

SEED = 0
SIDE = 32
_EXTENSIONS = ("jpg", "png")
# Training images of ImageNet, and bytes of one in TFDS.
IMAGENET, IMAGENET_BYTES = 1_281_167, 112_000
_PART = 4096


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000, help="image files")
    parser.add_argument("--names", type=int, default=1_000_000, help="names of these files")
    parser.add_argument("--records", type=int, default=IMAGENET, help="images that are shuffled")
    parser.add_argument("--before", help="a checkout of another commit, measured as well")
    parser.add_argument("--output", default="results/files")
    arguments = parser.parse_args()
    trees = [str(ROOT), *filter(None, [arguments.before])]
    with tempfile.TemporaryDirectory() as made:
        few, many = (pathlib.Path(made, name) for name in ("files", "names"))
        write_images(few, arguments.files)
        link_names(few, many, arguments.names)
        rows = [started(folder, tree) for folder in (few, many) for tree in trees]
    found = {
        "command": f"tools/files_at_scale.py --files={arguments.files} --names={arguments.names} "
        f"--records={arguments.records}" + " --before=FOLDER" * bool(arguments.before),
        "commit": commit_here(),
        "seed": SEED,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("tensorflow", "keras", "pillow")},
        "starts": rows,
        "shuffling": [
            moved("TFDS", arguments.records, IMAGENET_BYTES),
            moved("folder", arguments.records, 16),
        ],
    }
    write_text(pathlib.Path(f"{arguments.output}.json"), json.dumps(found, indent=2) + "\n")
    write_text(pathlib.Path(f"{arguments.output}.md"), page(found))


def write_images(folder: pathlib.Path, count: int) -> None:
    """Writes random images in 100 classes, half of them JPEG, half PNG.

    Args:
        folder: where.
        count: how many.
    """
    drawn = np.random.default_rng(SEED)
    for number in range(count):
        file = folder / f"class_{number % 100:02}" / f"{number}.{_EXTENSIONS[number // 100 % 2]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file)


def link_names(files: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Gives files further names, in 1,000 classes.

    Args:
        files: where they are.
        folder: where the names are.
        count: how many names.
    """
    known = sorted(files.glob("*/*"))
    for label in range(min(1000, count)):
        (folder / f"n{label:08}").mkdir(parents=True)
    for number in range(count):
        file, label = known[number % len(known)], number % 1000
        os.link(file, folder / f"n{label:08}" / f"n{label:08}_{number}{file.suffix}")


def started(folder: pathlib.Path, tree: str) -> dict[str, Any]:
    """Returns what a start-up on a folder takes.

    Args:
        folder: of images.
        tree: the checkout whose code is run.
    """
    count = sum(len(files) for _, _, files in os.walk(folder))
    load, begun = os.getloadavg()[0], time.monotonic()
    environment = {**os.environ, "PYTHONPATH": tree}
    with tempfile.TemporaryDirectory() as run:
        process = subprocess.Popen(
            [sys.executable, "-m", "tfcq.train", f"--dataset=folder:{folder}", "--preview",
             f"--run_dir={run}"],
            cwd=run, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python -m tfcq.train ended with {process.returncode} on {count} files.")
    row = {
        "names": count,
        "commit": commit_here(tree),
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }
    print(json.dumps(row), flush=True)
    return row


def moved(name: str, count: int, record_bytes: int) -> dict[str, Any]:
    """Returns how far images move from one epoch to the next.

    Args:
        name: of the kind of source.
        count: images.
        record_bytes: memory of an undecoded one.
    """
    import tensorflow as tf

    from tfcq.data.order import shuffled_epochs
    from tfcq.data.split import Split

    records = tf.data.Dataset.range(count).map(lambda index: {"index": index})
    split = Split("train", count, (None, None, 3), None, records, lambda r: r, record_bytes)
    places = []
    for epoch in shuffled_epochs(split, SEED).take(2):
        parts = epoch.map(lambda seed, record: record["index"]).batch(_PART)
        places.append(np.argsort(np.concatenate(list(parts.as_numpy_iterator()))))
    far = np.abs(places[0] - places[1])
    row = {"source": name, "images": count, "mean": float(far.mean()), "most": int(far.max())}
    print(json.dumps(row), flush=True)
    return row


def page(found: dict[str, Any]) -> str:
    """Returns the figures as Markdown.

    Args:
        found: all that was measured.
    """
    starts = table(
        ("names", "commit", "seconds", "CPU seconds", "peak MB", "load before, after"),
        [(f"{row['names']:,}", short(row["commit"]), row["seconds"], row["cpu_seconds"],
          f"{row['peak_mb']:,}", "{}, {}".format(*row["load"])) for row in found["starts"]],
    )  # fmt: skip
    shuffling = table(
        ("source", "images", "mean way", "longest way", "mean way, share of the set"),
        [(row["source"], f"{row['images']:,}", f"{row['mean']:,.0f}", f"{row['most']:,}",
          f"{row['mean'] / row['images']:.4f}") for row in found["shuffling"]],
    )  # fmt: skip
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        "# Many image files", "",
        "`python -m tfcq.train --dataset=folder:PATH --preview` on random images of",
        f"{SIDE} x {SIDE} pixels, half JPEG, half PNG, from its start to its end: the import of",
        "TensorFlow, the listing, what is decoded at the start, and a first batch. Load: other",
        "work beside it, as the average of a minute, of which CPU seconds depend less.", "",
        starts, "",
        "How far an image moves between two epochs, in places. A permutation of the whole set",
        "moves images by a third of the set in the mean; TFDS is shuffled in blocks that fit into",
        "memory.", "",
        shuffling, "",
        f"- Command: `{found['command']}`",
        f"- Commit: {short(found['commit'])}; seed {found['seed']}; {found['machine']}",
        f"- Versions: {versions}", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
