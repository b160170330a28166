"""How many images a CPU-second makes two views of, beside lightly and an earlier checkout.

CPU-seconds of all threads, for others may use the machine. Every figure is the median over rounds,
in each of which all take their turn in processes of their own. Photographs are pieces of the two
that scikit-learn carries, as JPEG files, decoded anew in every epoch; small images are random.
lightly, of the interpreter `--peer`, loads the same files with `SimSiamTransform` and one process.
"""

import argparse
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

from benchmarks.alone import alone, last_line
from benchmarks.peer import check_peer
from provenance import ROOT

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


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds whom to measure beside, and rounds."""
    parser.add_argument("--peer", help="Python interpreter of an environment with lightly")
    parser.add_argument("--baseline", help="checkout of an earlier commit to measure beside")
    parser.add_argument("--rounds", type=int, default=5)


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each kind of images and whoever makes views of them."""
    checkouts = {"tfcq": ROOT}
    if arguments.baseline:
        checkouts["baseline"] = pathlib.Path(arguments.baseline).resolve()
    if arguments.peer:
        check_peer(arguments.peer)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: write_photographs(folder, *size) for name, size in SIZES.items()}
        for _ in range(arguments.rounds):
            for name in (*SIZES, *SMALL):
                given = ("pipeline:measured", name, folders.get(name, ""))
                for who, checkout in checkouts.items():
                    made = alone(*given, checkout=checkout)
                    found.setdefault((name, who), []).append(made)
                if arguments.peer and name in folders:
                    line = last_line([arguments.peer, "-I", "-c", PEER, f"{folders[name]}/train"])
                    found.setdefault((name, "lightly"), []).append({"rate": float(line)})
    rows = []
    for (name, who), rounds in found.items():
        median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        if who == "tfcq":
            own = median["rate"]
        row = {"images": name, "by": who, "images per CPU-second": median["rate"]}
        row["tfcq over it"] = own / median["rate"]
        rows.append(row | ({"MB": median["MB"]} if "MB" in median else {}))
    return rows


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


def measured(name: str, folder: str) -> dict[str, float]:
    """Returns images per CPU-second, and of files the megabytes in use."""
    import numpy as np

    from tfcq.data.augmentation import augmentation_for
    from tfcq.data.folder import FolderSource
    from tfcq.data.user_images import two_views

    try:
        from tfcq.data import views
    except ImportError:
        # An earlier checkout's.
        from tfcq.data import pipeline as views

    if name in SMALL:
        images = np.random.default_rng(0).integers(0, 256, (8192, *SMALL[name]), np.uint8)
        batches, size, count = two_views(images, 256), 256, 64
    else:
        # Images that fit into memory would be decoded once.
        views.CACHE_BYTES = 0
        split = FolderSource(folder).split("train")
        batches = views.view_batches(split, augmentation_for(224, 3), 224, BATCH, 0)
        size, count = BATCH, 2 * PHOTOGRAPHS // BATCH
    batches = iter(batches)
    for _ in range(4):
        next(batches)
    start = time.process_time()
    for _ in range(count):
        next(batches)
    rate = count * size / (time.process_time() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": rate} if name not in SIZES else {"rate": rate, "MB": most}
