#!/usr/bin/env python3
"""Compares the linear probe with scikit-learn's LogisticRegression on the same cached features.

    .venv/bin/python tools/probe_check.py RUN --output=results/probe_fashion_mnist.json

Both are trained on the standardized features of a run's training images at a bit-width and scored
on all of its test images.
"""

import argparse
import json
import os
import pathlib
import platform
import sys

from provenance import commit_here

from tfcq import command_line
from tfcq.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Prints both accuracies; `--output` also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run that ended")
    parser.add_argument("--bits", default="fp,4w4a", help="bit-widths of the features")
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    try:
        compare(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def compare(arguments: argparse.Namespace) -> None:
    """Trains both classifiers at every bit-width."""
    command_line.quiet_start_up(0)

    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from tfcq.evaluation.accuracy import accuracy
    from tfcq.evaluation.data import calibration_images, labelled_images
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.evaluation.probe import fit_linear_probe, moments
    from tfcq.evaluation.records import versions
    from tfcq.evaluation.run_subject import trained_backbone
    from tfcq.files import write_text
    from tfcq.nn.calibration import calibrate
    from tfcq.settings.bitwidths import parse_bit_widths
    from tfcq.settings.run_folder import RunFolder

    folder = RunFolder(arguments.run)
    config = folder.load()
    backbone = trained_backbone(folder, config)
    _, data = labelled_images(config.data, backbone.input_shape)
    calibrate(backbone, calibration_images(data.train_images, None, None))
    features, found = FeatureExtractor(backbone), []
    for bits in parse_bit_widths(arguments.bits):
        train, test = features(data.train_images, bits), features(data.test_images, bits)
        probe = fit_linear_probe(train, data.train_labels, data.classes)
        mean, deviation = moments(train)
        logistic = LogisticRegression(max_iter=5000)
        logistic.fit((train - mean) / deviation, data.train_labels)
        predicted = logistic.predict((test - mean) / deviation)
        figures = {
            "bits": str(bits),
            "linear_probe": accuracy(probe.logits(test), data.test_labels, 1),
            "logistic_regression": float(np.mean(predicted == data.test_labels)),
        }
        print(figures, flush=True)
        found.append(figures)
    if arguments.output:
        commit = commit_here()
        about = {
            "dataset": config.data.dataset,
            "seed": config.execution.seed,
            "train_images": len(data.train_images),
            "test_images": len(data.test_images),
            "commit": commit,
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
            "versions": versions(),
        }
        write_text(arguments.output, json.dumps({**about, "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
