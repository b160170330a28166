#!/usr/bin/env python3
"""Times int8 files beside float ones and those of LiteRT's own converter: `tools/int8_speed.py`.

    .venv/bin/python tools/int8_speed.py --output=results/int8_speed

Networks with random weights, one thread, XNNPACK's kernels; the files take turns in one process,
and medians are told. Writes `.json` and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from provenance import commit_here

import tfcq
from tfcq import native_messages
from tfcq.deployment.check import median_seconds
from tfcq.deployment.tflite import float_tflite
from tfcq.files import write_text
from tfcq.integer.runtime import LiteModel
from tfcq.reporting.tables import table

_SIZES = {"ResNet-18, width 16": 32, "MobileNetV2": 96}
_CONVERTER = "int8, LiteRT's converter"


def network(name: str) -> keras.Model:
    """Returns a network with random weights.

    Args:
        name: one of those that are timed.
    """
    shape = (_SIZES[name], _SIZES[name], 3)
    if name == "MobileNetV2":
        return keras.applications.MobileNetV2(shape, weights=None, include_top=False, pooling="avg")
    return tfcq.resnet(18, "cifar", 16, shape)


def converted(model: keras.Model, images: np.ndarray) -> bytes:
    """Returns the int8 file that LiteRT's converter makes.

    Args:
        model: the network.
        images: float32, which set its ranges.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[np.newaxis]] for one in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    with native_messages.hidden():
        return converter.convert()


def timed(name: str, repeats: int) -> dict[str, float]:
    """Returns milliseconds an image by file.

    Args:
        name: the network.
        repeats: measured calls of each file.
    """
    keras.utils.set_random_seed(0)
    model = network(name)
    # Random pixels, of which the time does not depend.
    images = np.random.default_rng(0).random((32, *model.input_shape[1:]), np.float32)
    form = tfcq.deployable(model)
    tfcq.calibrate(form, images)
    files = {
        "float32": LiteModel(float_tflite(model)),
        "int8": LiteModel(tfcq.int8_tflite(form, images)),
        _CONVERTER: LiteModel(converted(model, images)),
        "int8, 8 images at once": LiteModel(tfcq.int8_tflite(form, images, batch=8)),
    }
    for file in files.values():
        file(images[: file.batch])
    seconds = median_seconds({kind: file.invoke for kind, file in files.items()}, repeats)
    return {kind: 1000 * seconds[kind] / file.batch for kind, file in files.items()}


def main() -> None:
    """Times the networks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--output", default="results/int8_speed")
    arguments = parser.parse_args()
    found = {name: timed(name, arguments.repeats) for name in _SIZES}
    about = {
        "command": f"tools/int8_speed.py --repeats={arguments.repeats}",
        "commit": commit_here(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, one thread",
        "versions": {n: version(n) for n in ("tensorflow", "keras", "ai-edge-litert")},
    }
    rows = [
        (name, f"{size} x {size}", kind, f"{found[name][kind]:.3f}",
         f"{found[name]['float32'] / found[name][kind]:.2f}")
        for name, size in _SIZES.items() for kind in found[name]
    ]  # fmt: skip
    versions = ", ".join(f"{library} {number}" for library, number in about["versions"].items())
    lines = [
        "# Speed of int8 files", "",
        "Milliseconds an image, medians of files that take turns in one process; ratio to float32.",
        "", table(("network", "image", "file", "ms", "ratio"), rows), "",
        f"- Command: `{about['command']}`", f"- Commit: {about['commit'][:7]}; {about['machine']}",
        f"- Versions: {versions}", "",
    ]  # fmt: skip
    output = pathlib.Path(arguments.output)
    write_text(output.with_suffix(".json"), json.dumps({**about, "ms": found}, indent=2) + "\n")
    write_text(output.with_suffix(".md"), "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
