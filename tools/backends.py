#!/usr/bin/env python3
"""Tables three ways from a backbone to an int8 file: ours, fine-tuned, and two libraries'.

    .venv/bin/python tools/backends.py --run_dir=runs/digits --name=backends

All start from the same classifier, a linear probe on the backbone's features: tfcq.int8_tflite,
with and without fine-tuning, tensorflow-model-optimization and ai-edge-quantizer, each at the bits
it has.
A file's own simulation is what its library computes in float32 before it writes the file. Writes
`results/NAME.json` and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from provenance import commit_here

import tfcq
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.deployment.ai_edge_quantizer import quantized_file
from tfcq.deployment.check import median_seconds
from tfcq.deployment.tflite import float_tflite, int8_tflite
from tfcq.deployment.tfmot import tfmot_tflite
from tfcq.deployment.verify import checked
from tfcq.errors import UserError
from tfcq.evaluation.classifier import train_classifier, with_probe
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.files import write_text
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.micro import MicroModel
from tfcq.integer.runtime import LiteModel
from tfcq.reporting.tables import percent, table
from tfcq.settings.bitwidths import BitWidth, parse_bit_width
from tfcq.settings.run_folder import RunFolder

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert", "tensorflow-model-optimization",
            "ai-edge-quantizer", "tflite-micro")  # fmt: skip
TUNED = "tfcq, fine-tuned"
QUANTIZER = "ai-edge-quantizer"
TFMOT = "tensorflow-model-optimization"
CANNOT = {
    "tfcq": "no activations of other bits than 8",
    TFMOT: "weights of 8 bits alone; needs labels and training; layers of its own list alone; "
    "Keras 2, hence a process of its own",
    QUANTIZER: "no simulation, so that nothing is known of a file before it runs; what it cannot "
    "quantize stays in float without a word",
}


class Study:
    """A classifier, its images, and the files that were made of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        backbone = tfcq.load(RunFolder(arguments.run_dir).backbone)
        source = open_source(arguments.dataset, arguments.data_dir)
        size = backbone.input_shape[1]
        self.images, self.labels = labelled_arrays(source.split("train"), size)
        self.test_images, self.test_labels = labelled_arrays(source.split("test"), size)
        features = tfcq.FeatureExtractor(backbone)(self.images)
        classes = int(self.labels.max()) + 1
        probe = fit_linear_probe(features, self.labels, classes, seed=arguments.seed)
        self.model = with_probe(tfcq.float_model(backbone), probe)
        self.calibration = self.images[: arguments.images]
        self.float_file = float_tflite(self.model)
        self.files: dict[str, bytes] = {}
        self.simulated: dict[str, np.ndarray] = {}
        self.losses: dict[str, list[float]] = {}
        self.refusals: dict[str, str] = {}

    def top1(self, scores: np.ndarray) -> float:
        """Returns the share of test images that are classified right."""
        return float(np.mean(scores.argmax(axis=1) == self.test_labels))

    def form(self, bits: BitWidth, trained: bool) -> keras.Model:
        """Returns our integer form, calibrated, fine-tuned in integers where asked for."""
        form = tfcq.deployable(self.model)
        tfcq.calibrate(form, self.calibration)
        if trained:
            keras.utils.set_random_seed(self.arguments.seed)
            size, epochs = self.arguments.batch_size, self.arguments.epochs
            count = len(self.images)
            order = np.random.default_rng(self.arguments.seed)
            orders = [order.permutation(count) for _ in range(epochs)]

            def batches():
                for one in orders:
                    for start in range(0, count, size):
                        chosen = one[start : start + size]
                        yield self.images[chosen], self.labels[chosen]

            import tensorflow as tf

            spec = (tf.TensorSpec([None, *self.images.shape[1:]]), tf.TensorSpec([None], tf.int64))
            curve = train_classifier(
                form, tf.data.Dataset.from_generator(batches, output_signature=spec),
                -(-count // size), epochs, keras.optimizers.Adam(self.arguments.learning_rate),
                bits, lambda: 0.0,
            )  # fmt: skip
            self.losses[f"{TUNED} {bits}"] = [point["loss"] for point in curve]
            tfcq.calibrate(form, self.calibration, bits=str(bits))
        return form

    def ours(self, bits: BitWidth, trained: bool = False) -> None:
        """Makes our file."""
        name = f"{TUNED if trained else 'tfcq'} {bits}"
        try:
            form = self.form(bits, trained)
            self.files[name] = int8_tflite(form, self.calibration, bits=str(bits))
        except UserError as error:
            self.refusals[name] = str(error)
            return
        precision = tfcq.Precision(bits.weights, bits.activations)
        self.simulated[name] = np.concatenate(
            [np.asarray(form(part, precision=precision)) for part in parts(self.test_images)]
        )

    def tfmot(self) -> None:
        """Makes the file of tensorflow-model-optimization."""
        name, given = f"{TFMOT} 8w8a", self.arguments
        try:
            tuned = tfmot_tflite(
                self.model, self.images, self.labels, given.epochs, given.learning_rate,
                given.batch_size, given.seed, self.test_images,
            )  # fmt: skip
        except UserError as error:
            self.refusals[name] = str(error)
            return
        self.files[name], self.simulated[name] = tuned.content, tuned.simulated
        self.losses[name] = tuned.losses

    def quantizer(self, bits: BitWidth, dynamic: bool = False) -> None:
        """Makes the file of ai-edge-quantizer."""
        name = f"{QUANTIZER} {bits}{', dynamic' if dynamic else ''}"
        try:
            self.files[name] = quantized_file(self.float_file, self.calibration, bits, dynamic)
        except UserError as error:
            self.refusals[name] = str(error)

    def measured(self) -> dict[str, dict]:
        """Returns the figures of every file."""
        count = self.arguments.gate_images
        every = np.concatenate([self.test_images, self.images])[:count]
        models = {name: LiteModel(content) for name, content in self.files.items()}
        models["float32"] = LiteModel(self.float_file)
        scores = {name: model(self.test_images) for name, model in models.items()}
        seconds = median_seconds({name: model.invoke for name, model in models.items()})
        figures: dict[str, dict] = {}
        for name in ("float32", *self.files):
            content = self.files.get(name, self.float_file)
            figures[name] = {
                "top1": self.top1(scores[name]),
                "bytes": len(content),
                "milliseconds": 1000 * seconds[name],
                **self.gated(content, every),
                **self.micro(content),
            }
            if name in self.simulated:
                simulated, found = self.simulated[name], scores[name]
                same = simulated.argmax(axis=1) == found.argmax(axis=1)
                # Outputs are multiples of a step; what lies within a thousandth of it is equal.
                step = np.min(np.diff(np.unique(found)))
                figures[name] |= {
                    "simulated_top1": self.top1(simulated),
                    "agreement": float(np.mean(same)),
                    "equal_outputs": float(np.mean(np.abs(simulated - found) < step / 1000)),
                }
            print(name, json.dumps(figures[name]), flush=True)
        return figures

    def gated(self, content: bytes, images: np.ndarray) -> dict:
        """Returns whether the emulation equals LiteRT, and how the sets of kernels differ."""
        try:
            found = checked(LiteFile.read(content), images)
        except UserError as error:
            return {"gate": str(error)}
        outputs = {name: np.asarray(values) for name, values in found["outputs"].items()}
        return {
            "gate": {name: one["differing"] for name, one in found["kernels"].items()},
            "first": {name: one["first"] for name, one in found["kernels"].items() if one["first"]},
            "equal_to_xnnpack": {
                name: float(np.mean(values == outputs["xnnpack"]))
                for name, values in outputs.items()
                if name != "xnnpack"
            },
        }

    def micro(self, content: bytes) -> dict:
        """Returns the arena of a microcontroller's interpreter, where its package is installed."""
        try:
            return {"arena": MicroModel(content).arena.total}
        except UserError as error:
            return {"arena": str(error)}


def parts(images: np.ndarray) -> list[np.ndarray]:
    """Returns images in parts that a pass can hold."""
    return np.array_split(images, -(-len(images) // 256))


def versions() -> dict[str, str]:
    """Returns the versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def main() -> None:
    """Makes the files, measures them and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True, help="the folder of a run")
    parser.add_argument("--name", default="backends", help="name of the files under results/")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data_dir")
    parser.add_argument("--images", type=int, default=512, help="images for calibration")
    parser.add_argument("--gate_images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="of fine-tuning")
    parser.add_argument("--batch_size", type=int, default=32, help="of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.time()
    study = Study(arguments)
    for bits in map(parse_bit_width, ("8w8a", "4w8a", "8w4a")):
        study.ours(bits)
    study.ours(parse_bit_width("8w8a"), trained=True)
    study.tfmot()
    for bits in map(parse_bit_width, ("8w8a", "4w8a", "6w8a", "2w8a")):
        study.quantizer(bits)
    for bits in map(parse_bit_width, ("8w8a", "2w8a")):
        study.quantizer(bits, dynamic=True)
    figures = study.measured()
    commit = commit_here()
    # The folder's name alone: where it lies differs from machine to machine.
    given = {**vars(arguments), "run_dir": pathlib.Path(arguments.run_dir).name}
    about = {
        "command": "tools/backends.py " + " ".join(
            f"--{name}={value}" for name, value in given.items() if value is not None
        ),
        "commit": commit,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "minutes": round((time.time() - begun) / 60, 1),
        "versions": versions(),
        "test_images": len(study.test_labels),
    }  # fmt: skip
    results = {
        **about, "figures": figures, "losses": study.losses, "refusals": study.refusals,
        "cannot": CANNOT,
    }  # fmt: skip
    file = ROOT / "results" / arguments.name
    write_text(f"{file}.json", json.dumps(results, indent=2) + "\n")
    write_text(f"{file}.md", page(results))
    print(page(results))


def page(results: dict) -> str:
    """Returns the table, what was refused, and where it was made."""
    rows = []
    for name, found in results["figures"].items():
        gate = found["gate"]
        wrong = gate if isinstance(gate, str) else sum(gate.values())
        emulated = ("float" if name == "float32" or "dynamic" in name else
                    "yes" if wrong == 0 else
                    "no" if isinstance(gate, str) else str(wrong))  # fmt: skip
        apart = found.get("equal_to_xnnpack", {})
        arena = found["arena"]
        rows.append(
            (
                name,
                percent(found["top1"]),
                percent(found["agreement"]) if "agreement" in found else "none",
                percent(found["equal_outputs"]) if "equal_outputs" in found else "none",
                *(percent(apart[k]) if k in apart else "" for k in ("optimized", "reference")),
                emulated,
                f"{found['bytes']:,}",
                f"{arena:,}" if isinstance(arena, int) else "",
                f"{found['milliseconds']:.3f}",
            )
        )
    header = (
        "file", "top-1", "agreement", "equal outputs", "optimized", "reference", "emulated",
        "bytes", "arena", "ms",
    )  # fmt: skip
    lines = [
        f"# Ways from one backbone to an int8 file, {results['test_images']:,} test images",
        "",
        "Agreement and equal outputs: the file against its own simulation, by class and by value.",
        "Optimized and reference: share of outputs that equal those of the XNNPACK kernels.",
        "Emulated: whether the integer emulation equals LiteRT in every tensor on all three sets",
        "of kernels, else in how many values it does not. Milliseconds: median, one thread.",
        "Arena: bytes of the interpreter of microcontrollers.",
        "",
        table(header, rows),
        "",
        "Refused:",
        "",
        *(f"- {name}: {told}" for name, told in results["refusals"].items()),
        "",
        "What each cannot do:",
        "",
        *(f"- {name}: {what}" for name, what in results["cannot"].items()),
        "",
        "Loss of fine-tuning by epoch:",
        "",
        *(
            f"- {n}: {', '.join(f'{v:.3f}' for v in curve)}"
            for n, curve in results["losses"].items()
        ),
        "",
        f"- Command: `{results['command']}`",
        f"- Commit: {results['commit']}",
        f"- Machine: {results['machine']}, {results['minutes']} minutes",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in results['versions'].items())}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
