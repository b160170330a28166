#!/usr/bin/env python3
"""Post-training quantization beside that of brevitas and aimet-torch, on one float network.

    .venv/bin/python tools/ptq_peers.py --model=classifier.keras --dataset=digits --peer=PYTHON

The model is a quantizable classifier of convolutions, ReLUs, sums and one dense layer, such as
`tfcq.evaluate --keep_classifiers` saves of a ResNet or MobileNetV2. All methods get the same folded
weights, calibration images, test images, and bits at the same places. PYTHON is an interpreter with
torch and one of the others; without it ours are measured alone. Writes `results/NAME.json`, `.md`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from benchmarks.alone import last_line
from peers.description import described
from peers.page import OURS, Row, page
from provenance import commit_here

from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import accuracy
from tfcq.evaluation.features import FeatureExtractor
from tfcq.files import write_text
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.post_training.observation import calibration_images
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.post_training.rounding import RoundingSettings
from tfcq.settings.bitwidths import FLOAT, parse_bit_widths
from tfcq.settings.policies import policy_named

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER = ROOT / "tools" / "peers" / "ptq_torch.py"
# Stem and head at 8 bits, with what they read.
LAYER_BITS = "classifier:8w8a,features:8a"
# The peers of `ptq_torch.py`, by their packages.
PEERS = {"brevitas": "brevitas", "aimet-torch": "aimet"}
# Largest difference of logits, as a share of the largest logit, and of accuracies.
SAME_LOGITS, SAME_TOP1 = 1e-5, 1e-4
Given = dict[str, np.ndarray]


def plans(learning: RoundingSettings) -> dict[str, Plan]:
    """Returns our plans by what a reader calls them.

    Args:
        learning: how rounding is learned.
    """
    mse: dict[str, Any] = {"calibration": "mse", "learning": learning}
    both = mse | {"weight_scales": "mse"}
    return {
        "min-max": Plan(),
        "min-max, bias correction": Plan(correct_biases=True),
        "moving average": Plan(calibration="moving_average"),
        "mse ranges": Plan(**mse),
        "mse ranges, bias correction": Plan(**mse, correct_biases=True),
        "mse ranges and weights, bias correction": Plan(**both, correct_biases=True),
        "mse ranges and weights, norms re-estimated": Plan(**both, reestimate_batch_norm=True),
        "mse ranges, AdaRound": Plan(**mse, rounding="adaround"),
    }


class Study:
    """One classifier, the images, and the accuracy of its quantized copies.

    Args:
        arguments: the command line.

    Raises:
        UserError: on what cannot be loaded or read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.policy = policy_named(arguments.policy).with_layer_bits(arguments.layer_bits)
        self.widths = parse_bit_widths(arguments.bits)
        if FLOAT in self.widths:
            raise UserError("Bit-width 'fp' is always measured; allowed: quantized ones in --bits.")
        self.model = requantizable(load(arguments.model), self.policy)
        size = self.model.input_shape[1]
        source = open_source(arguments.dataset, arguments.data_dir)
        images, _ = labelled_arrays(source.split("train"), size)
        self.images = calibration_images(images, arguments.images, arguments.seed)
        self.test_images, self.test_labels = labelled_arrays(source.split("test"), size)
        self.logits = FeatureExtractor(self.model)(self.test_images, FLOAT)
        self.top1 = accuracy(self.logits, self.test_labels, 1)

    def ours(self) -> Iterator[Row]:
        """Yields a row for each of our methods and bit-widths."""
        narrow = dataclasses.replace(self.policy, narrow_range=True)
        learning = RoundingSettings(self.arguments.iterations, seed=self.arguments.seed)
        forms = [(self.model, name, plan) for name, plan in plans(learning).items()]
        forms.insert(1, (requantizable(self.model, narrow), "min-max, narrow weights", Plan()))
        for model, name, plan in forms:
            traced = FeatureExtractor(model)
            for bits in self.widths:
                start = time.process_time()
                quantized = PostTraining(model, self.images, plan).at(bits).model
                seconds = time.process_time() - start
                # Ranges alone change no model, which needs no second trace.
                features = traced if quantized is model else FeatureExtractor(quantized)
                logits = features(self.test_images, bits)
                top1 = accuracy(logits, self.test_labels, 1)
                row = {"by": OURS, "method": name, "bits": str(bits), "top1": top1}
                print(*row.values(), f"{seconds:.1f} s", file=sys.stderr, flush=True)
                yield row | {"seconds": seconds}

    def give(self, folder: pathlib.Path) -> None:
        """Writes what a peer needs to measure on the same network and images.

        Args:
            folder: where.

        Raises:
            UserError: on a network that `described` or `check_quantized` refuses.
        """
        nodes, weights = described(self.model)
        check_quantized(nodes)
        settings = {
            "nodes": nodes,
            "bits": [bits.pair for bits in self.widths],
            "iterations": self.arguments.iterations,
            "seed": self.arguments.seed,
        }
        (folder / "given.json").write_text(json.dumps(settings))
        images = {"calibration": self.images, "test_images": self.test_images}
        known = {"test_labels": self.test_labels, "logits": self.logits}
        np.savez(folder / "given.npz", **weights, **images, **known)

    def measured(self) -> tuple[list[Row], Row | None]:
        """Returns the rows of all, and the peers' versions and agreement in float.

        Peers run beside ours: what is told is the time that each had of a core.

        Raises:
            UserError: when the interpreter has no peer, or another float network than ours.
        """
        python = self.arguments.peer
        if not python:
            return list(self.ours()), None
        with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
            folder = pathlib.Path(name)
            self.give(folder)
            about = asked(python, "check", folder)
            check_same(about, self.top1)
            found = [
                pool.submit(asked, python, peer, folder)
                for package, peer in PEERS.items()
                if package in about["versions"]
            ]
            rows = list(self.ours())
            return rows + [row for one in found for row in one.result()], about


def asked(python: str, what: str, folder: pathlib.Path) -> Any:
    """Returns what the peers' interpreter answers.

    Args:
        python: the interpreter.
        what: `"check"` or a peer.
        folder: what it is given.

    Raises:
        UserError: when it fails.
    """
    try:
        return json.loads(last_line([python, "-I", str(PEER), what, str(folder)]))
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"--peer={python} failed at {what!r}: {error}; name an interpreter that has torch and "
            f"{' or '.join(PEERS)}."
        ) from None


def check_quantized(nodes: list[dict[str, Any]]) -> None:
    """Refuses kernels that stay float, which aimet would quantize.

    Args:
        nodes: of the network, as `described` returns them.

    Raises:
        UserError: naming the first of them.
    """
    for node in nodes:
        if node["kind"] in ("conv", "dense") and node["weights"] is None:
            raise UserError(
                f"Layer {node['name']!r} keeps float weights; allowed with --peer: bits for each, "
                f"such as --layer_bits={node['name']}:8w8a."
            )


def check_same(about: Row, top1: float) -> None:
    """Refuses peers whose float network is not ours.

    Args:
        about: what they found at `"check"`.
        top1: our accuracy in float.

    Raises:
        UserError: when none is installed, or logits or accuracy differ.
    """
    if not set(PEERS) & set(about["versions"]):
        raise UserError(f"--peer has neither {' nor '.join(PEERS)}; install one of them there.")
    if about["difference"] > SAME_LOGITS or abs(about["top1"] - top1) > SAME_TOP1:
        raise UserError(
            f"The peers' float network is another one: its logits differ by up to "
            f"{about['difference']:.1e} of the largest (allowed: {SAME_LOGITS:.0e}), its accuracy "
            f"is {about['top1']:.4f}, ours {top1:.4f}."
        )


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a quantizable classifier, .keras")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--peer", metavar="PYTHON", help="has torch, and brevitas or aimet-torch")
    parser.add_argument("--policy", default="paper", help="how the classifier is quantized")
    parser.add_argument("--layer_bits", default=LAYER_BITS, help="bits of single layers")
    parser.add_argument("--bits", default="3w3a,2w4a")
    parser.add_argument("--images", type=int, default=256, help="images for calibration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=300, help="of learned rounding")
    parser.add_argument("--name", default="ptq_peers", help="of the results")
    return parser.parse_args()


def measured(arguments: argparse.Namespace) -> Row:
    """Returns all figures, with what they were measured on.

    Args:
        arguments: the command line.

    Raises:
        UserError: as `Study` does.
    """
    study, commit = Study(arguments), commit_here()
    print(f"float: {study.top1:.4f}", file=sys.stderr, flush=True)
    rows, peers = study.measured()
    shown = {"peer": "PYTHON", "data_dir": "DIR", "model": "CLASSIFIER.keras"}
    given = {k: shown.get(k, v) for k, v in vars(arguments).items() if v}
    words = " ".join(f"--{name}={value}" for name, value in given.items())
    kept = ("policy", "layer_bits", "images", "seed", "iterations")
    return {
        "command": f".venv/bin/python tools/ptq_peers.py {words}",
        "commit": commit,
        **{name: getattr(arguments, name) for name in kept},
        "classifier": study.model.name,
        "test_images": len(study.test_images),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        "peers": peers,
        "fp": study.top1,
        "rows": rows,
    }


def main() -> None:
    """Measures and writes the page."""
    arguments = parsed()
    try:
        record = measured(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for suffix, text in ((".json", json.dumps(record, indent=2) + "\n"), (".md", page(record))):
        write_text(ROOT / "results" / f"{arguments.name}{suffix}", text)
    print(page(record))


if __name__ == "__main__":
    main()
