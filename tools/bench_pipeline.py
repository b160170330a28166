#!/usr/bin/env python3
"""Measures how many images a CPU-second makes two views of, beside lightly and an earlier checkout.

    .venv/bin/python tools/bench_pipeline.py --peer=VENV/bin/python --baseline=CHECKOUT

CPU-seconds of all threads, for others may use the machine. Every figure is the median over rounds,
in each of which all take their turn in processes of their own. Photographs are pieces of the two
that scikit-learn carries, as JPEG files, decoded anew in every epoch; small images are random.
lightly, of the interpreter `--peer`, loads the same files with `SimSiamTransform` and one process.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from provenance import ROOT, commit_here

PHOTOGRAPHS, BATCH = 256, 32
SIZES = {"224x224 JPEG": (224, 224), "375x500 JPEG": (375, 500)}
SMALL = {"28x28x1 array": (28, 28, 1), "32x32x3 array": (32, 32, 3)}
PEER = """
import sys, time, torch
from lightly.data import LightlyDataset
from lightly.transforms import SimSiamTransform
torch.set_num_threads(1)
data = LightlyDataset(sys.argv[1], transform=SimSiamTransform(input_size=224))
loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
next(iter(loader))
start = time.process_time()
count = sum(len(views[0]) for views, *_ in loader)
print(count / (time.process_time() - start))
"""


def main() -> None:
    """Measures and prints; `--output` also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="Python interpreter of an environment with lightly")
    parser.add_argument("--baseline", help="checkout of an earlier commit to measure beside")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="also write the figures to this JSON file")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(*arguments.measure)))
        return
    checkouts = {"tfcq": ROOT}
    if arguments.baseline:
        checkouts["baseline"] = pathlib.Path(arguments.baseline).resolve()
    figures = {name: {} for name in (*SIZES, *SMALL, "GFLOP per CPU-second of a convolution")}
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: write_photographs(folder, *size) for name, size in SIZES.items()}
        for _ in range(arguments.rounds):
            for name, found in figures.items():
                for who, checkout in checkouts.items():
                    command = [sys.executable, __file__, "--measure", name, folders.get(name, "")]
                    add(found, who, json.loads(output_of(command, str(checkout))))
                if arguments.peer and name in folders:
                    command = [arguments.peer, "-c", PEER, f"{folders[name]}/train"]
                    add(found, "lightly", {"rate": float(output_of(command))})
    medians = {
        name: {key: statistics.median(values) for key, values in found.items()}
        for name, found in figures.items()
    }
    for name, found in medians.items():
        print(name, *(f"{key} {value:.4g}" for key, value in found.items()), sep="\n    ")
    if arguments.output:
        from tfcq.files import write_text

        record = {
            "command": f"tools/bench_pipeline.py --rounds={arguments.rounds}",
            "commit": commit_here(),
            "baseline": arguments.baseline and commit_of(arguments.baseline),
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, other work beside it",
            "images per CPU-second, MB at most": medians,
            "all rounds": figures,
        }
        write_text(arguments.output, json.dumps(record, indent=2) + "\n")


def write_photographs(folder: str, height: int, width: int) -> str:
    """Writes a folder of JPEG files and returns it."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs, drawn = load_sample_images().images, np.random.default_rng(0)
    root = pathlib.Path(folder, f"{height}x{width}")
    (root / "train" / "all").mkdir(parents=True)
    for number in range(PHOTOGRAPHS):
        image = photographs[number % 2]
        top = drawn.integers(image.shape[0] - height + 1)
        left = drawn.integers(image.shape[1] - width + 1)
        piece = image[top : top + height, left : left + width]
        Image.fromarray(piece).save(root / "train" / "all" / f"{number:04}.jpg", quality=90)
    return str(root)


def output_of(command: list[str], path: str | None = None) -> str:
    """Returns what a command prints last, with Python modules found at `path` first."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PYTHONPATH": path} if path else {}
    done = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode().splitlines()[-1]


def add(found: dict[str, list[float]], who: str, measured: dict[str, float]) -> None:
    """Adds the figures of one process."""
    for key, value in measured.items():
        found.setdefault(who if key == "rate" else f"{who}, {key}", []).append(value)


def measured(name: str, folder: str) -> dict[str, float]:
    """Returns images per CPU-second and the memory in use, or the pace of a convolution."""
    import numpy as np
    import tensorflow as tf

    from tfcq.data import pipeline
    from tfcq.data.augmentation import augmentation_for
    from tfcq.data.folder import FolderSource
    from tfcq.data.user_images import two_views

    if name in SMALL:
        images = np.random.default_rng(0).integers(0, 256, (8192, *SMALL[name]), np.uint8)
        batches, size, count = two_views(images, 256), 256, 64
    elif name in SIZES:
        # Images that fit into memory would be decoded once.
        pipeline.CACHE_BYTES = 0
        split = FolderSource(folder).split("train")
        batches = pipeline.view_batches(split, augmentation_for(224, 3), 224, BATCH, 0)
        size, count = BATCH, 2 * PHOTOGRAPHS // BATCH
    else:
        images, kernel = tf.zeros([64, 32, 32, 64]), tf.zeros([3, 3, 64, 64])
        batches = iter(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"), None)
        size, count = 2 * 64 * 32 * 32 * 64 * 64 * 9 / 1e9, 50
    batches = iter(batches)
    for _ in range(4):
        next(batches)
    start = time.process_time()
    for _ in range(count):
        next(batches)
    rate = count * size / (time.process_time() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": rate} if name not in SIZES else {"rate": rate, "MB": most}


def commit_of(checkout: str) -> str:
    """Returns the commit of a checkout."""
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
