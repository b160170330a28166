#!/usr/bin/env python3
"""Tables top-1 accuracy of a classifier by post-training method and bit-width.

    .venv/bin/python tools/ptq_table.py --name=ptq_digits --model=classifier.keras --dataset=digits

The model is quantizable (`tfcq.quantizable(...).save(...)`), from images to logits. Images for
calibration are drawn from the training split by `--images` and `--seed`, without labels; accuracy
is that of the test split. Writes `results/NAME.json` and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from provenance import commit_here

from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import accuracy
from tfcq.evaluation.classifier import policy_beside_classifier
from tfcq.evaluation.features import FeatureExtractor
from tfcq.files import write_text
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.post_training.observation import calibration_images, observe
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.post_training.ranges import RANGES
from tfcq.post_training.rounding import RoundingSettings, learn_rounding
from tfcq.post_training.weights import with_stored_scales
from tfcq.reporting.tables import percent, table
from tfcq.settings.bitwidths import FLOAT, BitWidth, parse_bit_widths
from tfcq.settings.policies import policy_named

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNITS = {"AdaRound": "layer", "block reconstruction": "block"}


class Study:
    """One classifier, its calibration and test images, and the accuracy of its quantized copies."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        model = load(arguments.model)
        # The classifier stays float, as in the protocols of tfcq.evaluate.
        policy = policy_beside_classifier(model, policy_named(arguments.policy))
        self.model = requantizable(model, policy)
        size = self.model.input_shape[1]
        source = open_source(arguments.dataset, arguments.data_dir)
        images, _ = labelled_arrays(source.split("train"), size)
        self.images = calibration_images(images, arguments.images, arguments.seed)
        self.test_images, self.test_labels = labelled_arrays(source.split("test"), size)
        # Ranges of all methods and bits follow from one pass and need one trace.
        self.features = FeatureExtractor(self.model)
        self.observations = observe(self.model, self.images, batch_size=32)
        self.learning = RoundingSettings(
            iterations=arguments.iterations,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            seed=arguments.seed,
        )

    def top1(self, model, bits: BitWidth) -> float:
        """Returns the share of test images that a model classifies right."""
        return accuracy(FeatureExtractor(model)(self.test_images, bits), self.test_labels, 1)

    def plans(self) -> dict[str, Plan]:
        """Returns the plans by what a reader calls them."""
        base = {"calibration": "mse", "learning": self.learning}
        rounded = (("AdaRound", "adaround"), ("block reconstruction", "block"))
        return {
            "minmax, bias correction": Plan(correct_biases=True),
            "mse, bias correction": Plan(**base, correct_biases=True),
            "mse, batch-norm re-estimation": Plan(**base, reestimate_batch_norm=True),
            "mse, equalization": Plan(**base, equalize=True),
            "mse, mixed precision, bias correction": Plan(
                **base, mixed_precision=True, correct_biases=True
            ),
            "mse, mse weights": Plan(**base, weight_scales="mse"),
            "mse, mse weights, bias correction": Plan(
                **base, weight_scales="mse", correct_biases=True
            ),
            **{f"mse, {name}": Plan(**base, rounding=rounding) for name, rounding in rounded},
        }

    def by_method(self, bits: BitWidth, learned: bool):
        """Yields method and accuracy, weights and activations quantized."""
        for method in RANGES:
            self.observations.set_ranges(method, bits.activations)
            features = self.features(self.test_images, bits)
            yield method, accuracy(features, self.test_labels, 1)
        for name, plan in self.plans().items():
            if learned or plan.rounding == "nearest":
                quantized = PostTraining(self.model, self.images, plan).at(bits)
                yield name, self.top1(quantized.model, bits)

    def weights_alone(self, weight_bits: int):
        """Yields method and accuracy with float activations."""
        # Nothing quantizes activations, so that their bits do not matter.
        bits = BitWidth(weight_bits, 8)

        def prepared(scales: str):
            return with_stored_scales(self.model, weight_bits, scales, activations=False)

        yield "nearest", self.top1(prepared("max"), bits)
        yield "nearest, mse weights", self.top1(prepared("mse"), bits)
        for name, unit in UNITS.items():
            copy = prepared("max")
            learn_rounding(copy, self.model, self.images, bits, unit, self.learning)
            yield name, self.top1(copy, bits)


def collected(pairs, column: str) -> dict[str, float]:
    """Returns the accuracy by method, printed as it comes."""
    found = {}
    for method, top1 in pairs:
        found[method] = top1
        print(f"{column} {method}: {percent(top1)}", flush=True)
    return found


def rows_of(columns: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Returns one row per method."""
    methods = dict.fromkeys(method for found in columns.values() for method in found)
    return [
        (m, *(percent(found[m]) if m in found else "" for found in columns.values()))
        for m in methods
    ]


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of the files under results/")
    parser.add_argument("--model", required=True, help="a quantizable classifier, .keras")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--policy", default="uniform", help="how the classifier is quantized")
    parser.add_argument("--bits", default="8w8a,4w4a,3w3a")
    parser.add_argument("--rounding_bits", help="those of --bits with learned rounding; or all")
    parser.add_argument("--weight_bits", default="3", help="bits with float activations")
    parser.add_argument("--images", type=int, default=1024, help="images for calibration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=10_000, help="per learned unit")
    parser.add_argument("--batch_size", type=int, default=32, help="of learned rounding")
    parser.add_argument("--learning_rate", type=float, default=0.01, help="of learned rounding")
    arguments = parser.parse_args()
    try:
        measure(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def measure(arguments: argparse.Namespace) -> None:
    """Measures everything and writes both files."""
    start = time.monotonic()
    widths = parse_bit_widths(arguments.bits)
    if FLOAT in widths:
        raise UserError("Bit-width 'fp' is always measured; allowed: quantized ones in --bits.")
    learned = parse_bit_widths(arguments.rounding_bits or arguments.bits)
    study, commit = Study(arguments), commit_here()
    top_float = study.top1(study.model, FLOAT)
    both = {
        str(bits): collected(study.by_method(bits, bits in learned), str(bits)) for bits in widths
    }
    alone = {
        f"{bits}w": collected(study.weights_alone(int(bits)), f"{bits}w")
        for bits in arguments.weight_bits.split(",")
    }
    settings = {k: v for k, v in vars(arguments).items() if k not in ("model", "data_dir", "name")}
    about = {
        "settings": settings,
        "commit": commit,
        "classifier": study.model.name,
        "test_images": len(study.test_images),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    out = ROOT / "results" / arguments.name
    results = {"fp": top_float, "top1": both, "weights_alone": alone}
    write_text(out.with_suffix(".json"), json.dumps({**about, **results}, indent=2) + "\n")
    lines = [
        f"# {arguments.name}: top-1 accuracy in percent by post-training method",
        "",
        f"Classifier `{study.model.name}`, {about['test_images']} test images; float: "
        f"{percent(top_float)}.",
        "",
        table(("ranges and what follows them", *both), rows_of(both)),
        "",
        "Weights alone, activations float:",
        "",
        table(("rounding", *alone), rows_of(alone)),
        "",
        f"- Settings: {' '.join(f'--{name}={value}' for name, value in settings.items())}",
        f"- Commit: {commit}",
        f"- Machine: {about['machine']}, {about['minutes']} minutes",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in about['versions'].items())}",
        "",
    ]
    write_text(out.with_suffix(".md"), "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
