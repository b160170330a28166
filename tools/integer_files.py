#!/usr/bin/env python3
"""Writes int8 files of many networks and tables what the gate finds: `tools/integer_files.py`.

    .venv/bin/python tools/integer_files.py --output=results/integer_files RUN [RUN ...]

The backbones of runs or models of your own, and a network of every family of keras.applications
with random weights whose batch norms were given the statistics of images. Images are 1,000 of
scikit-learn's digits, scaled to the network's size. A process for each network; rows that are there
already stay. Where tflite-micro is installed the outputs of the first `--micro_images` are compared
with its own, in rows that are there already, too. Writes `.json` and `.md`.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from provenance import commit_here, short

from tfcq.errors import UserError
from tfcq.files import write_text
from tfcq.reporting.tables import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = {
    "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Small": 32, "EfficientNetB0": 32,
    "VGG16": 32, "ResNet50": 32, "ResNet50V2": 32, "DenseNet121": 32, "NASNetMobile": 32,
    "EfficientNetV2B0": 32, "ConvNeXtTiny": 32, "Xception": 71, "InceptionV3": 75,
    "InceptionResNetV2": 75,
}  # fmt: skip
BITS = ("8w8a", "4w8a")


def main() -> None:
    """Measures the networks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="folders of runs, or models of digits")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--output", default="results/integer_files")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--micro_images", type=int, default=100)
    parser.add_argument("--alone", help="measure this one and print JSON")
    parser.add_argument("--on_micro", help="run this one on tflite-micro and print JSON")
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.alone, arguments.images)))
        return
    if arguments.on_micro:
        print(json.dumps(on_micro(arguments.on_micro, arguments.images, arguments.micro_images)))
        return
    file = pathlib.Path(f"{arguments.output}.json")
    rows = json.loads(file.read_text())["networks"] if file.exists() else {}
    commit = commit_here()
    numbers = [f"--images={arguments.images}", f"--micro_images={arguments.micro_images}"]
    for name in [*arguments.runs, *filter(None, arguments.families.split(","))]:
        key = pathlib.Path(name).stem
        row = dict(rows.get(key) or {**_told_by(f"--alone={name}", *numbers), "commit": commit})
        if importlib.util.find_spec("tflite_micro") and not {"micro", "refused"} & set(row):
            row["micro"] = {**_told_by(f"--on_micro={name}", *numbers), "commit": commit}
        if row == rows.get(key):
            continue
        rows[key] = row
        print(key, json.dumps(row)[:300], flush=True)
        about = {
            "command": f"tools/integer_files.py {' '.join(numbers)}",
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
            "versions": {n: version(n) for n in ("tensorflow", "keras", "ai-edge-litert")},
        }
        write_text(file, json.dumps({**about, "networks": rows}, indent=2) + "\n")
        write_text(f"{arguments.output}.md", page(about, rows))


def _told_by(*flags: str) -> dict[str, Any]:
    """Returns what this tool prints in a process of its own, or why it failed."""
    done = subprocess.run(
        [sys.executable, __file__, *flags], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"refused": done.stderr[-300:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(name: str, count: int) -> dict[str, Any]:
    """Returns what the gate finds of one network at each bit-width.

    Args:
        name: a run's folder, a model's file, or a family.
        count: how many images.
    """
    from tfcq.deployment.gate import gate, gate_figures, simulated_levels
    from tfcq.integer.writing import written
    from tfcq.settings.bitwidths import parse_bit_width

    try:
        form, images = _form(name, count)
        size = images.shape[1]
        found: dict[str, Any] = {"parameters": form.count_params(), "image": size}
        for bits in map(parse_bit_width, BITS):
            made = written(form, bits)
            begun = time.monotonic()
            counts, outputs = gate(made.file, images, simulated_levels(form, made, bits))
            figures = gate_figures(counts, len(images))
            plain = np.asarray(form.predict(images[:200], verbose=0)).reshape(min(200, count), -1)
            computed = outputs["xnnpack"][:200].reshape(plain.shape)
            figures["operations"] = len(figures["operations"])
            figures["bytes"] = len(made.file.to_bytes())
            figures["cosine_with_float"] = float(_cosine(plain, computed))
            figures["seconds"] = round(time.monotonic() - begun, 1)
            found[str(bits)] = figures
    except UserError as error:
        return {"refused": str(error)}
    return found


def on_micro(name: str, count: int, few: int) -> dict[str, Any]:
    """Returns what the kernels of microcontrollers make of one network's files.

    Args:
        name: a run's folder, a model's file, or a family.
        count: how many images it is written with.
        few: how many of them it is run on.
    """
    from tfcq.deployment.verify import micro_differences
    from tfcq.integer.micro import MicroModel
    from tfcq.integer.writing import written
    from tfcq.settings.bitwidths import parse_bit_width

    found: dict[str, Any] = {}
    try:
        form, images = _form(name, count)
        for bits in map(parse_bit_width, BITS):
            file = written(form, bits).file
            model = MicroModel(file.to_bytes())
            differing = micro_differences(file, model, images[:few])
            found[str(bits)] = {
                "differing": differing, "images": few, "arena": model.arena.total
            }  # fmt: skip
    except UserError as error:
        return {"refused": str(error)}
    return found


def _form(name: str, count: int) -> tuple[Any, np.ndarray]:
    """Returns the calibrated integer form of a network, and the images."""
    import keras
    from sklearn.datasets import load_digits

    import tfcq
    from tfcq.integer.form import deployable

    keras.utils.set_random_seed(0)
    digits = np.clip(np.round(load_digits().images * 255 / 16), 0, 255)[:count, ..., None]
    file = pathlib.Path(name)
    file = file if file.suffix else file / "backbone.keras"
    model = _family(name) if name in FAMILIES else tfcq.load(file)
    size, channels = model.input_shape[1], model.input_shape[3]
    images = np.asarray(keras.ops.image.resize(digits, (size, size)))
    images = np.repeat((np.round(images) / 255).astype(np.float32), channels, axis=3)
    if name in FAMILIES:
        model = _with_statistics(model, images, name)
    form = deployable(model)
    tfcq.calibrate(form, images[:256])
    return form, images


def _cosine(a: np.ndarray, b: np.ndarray) -> np.floating:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.mean(np.sum(a * b, axis=1) / np.maximum(norms, 1e-12))


def _family(name: str) -> Any:
    import keras

    size = FAMILIES[name]
    return getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )


def _with_statistics(model: Any, images: np.ndarray, name: str) -> Any:
    """Gives batch norms the statistics of images, in the pixels that the network takes."""
    import keras

    from tfcq.nn.input_range import known_input_range, with_unit_input

    model = with_unit_input(model, known_input_range(model, None))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(12):
        model(images[:64], training=True)
    return model


def page(about: dict[str, Any], rows: dict[str, Any]) -> str:
    """Returns the table as Markdown.

    Args:
        about: command, machine and versions.
        rows: figures by network.
    """
    head = ("network", "bits", "operations", "images", "values", "xnnpack", "optimized",
            "reference", "micro", "simulation %", "cosine", "bytes", "arena")  # fmt: skip
    cells, refused = [], []
    for name, found in rows.items():
        if "refused" in found:
            refused.append(f"- {name}: {found['refused']}")
            continue
        for bits in BITS:
            one, micro = found[bits], found.get("micro", {}).get(bits)
            cells.append(
                (name, bits, one["operations"], one["images"], f"{one['elements']:,}",
                 *(str(kernels["differing"]) for kernels in one["kernels"].values()),
                 str(micro["differing"]) if micro else "",
                 f"{100 * one['simulation_equal_steps']:.1f}", f"{one['cosine_with_float']:.4f}",
                 f"{one['bytes']:,}", f"{micro['arena']:,}" if micro else "")
            )  # fmt: skip
    lines = [
        "# Int8 files of many networks, through the gate", "",
        "By kernels: values in which emulation and LiteRT differ, over every tensor and image.",
        "Simulation: share of the last operation's steps that equal XNNPACK's. Cosine: outputs",
        "beside the float network's. Micro: outputs in which emulation and tflite-micro differ,",
        "over the first --micro_images; arena: bytes of memory that it needs there.", "",
        table(head, cells), "",
    ]  # fmt: skip
    if refused:
        lines += ["Refused:", "", *refused, ""]
    lacking = [
        f"- {name}: {micro['refused']}"
        for name, found in rows.items()
        if "refused" in (micro := found.get("micro", {}))
    ]
    if lacking:
        lines += ["Not on microcontrollers:", "", *lacking, ""]
    measured = [part for found in rows.values() for part in (found, found.get("micro", found))]
    commits = ", ".join(sorted({short(part["commit"]) for part in measured}))
    versions = ", ".join(f"{library} {number}" for library, number in about["versions"].items())
    lines.append(f"- Command: `{about['command']}`")
    lines.append(f"- Commit: {commits}; {about['machine']}")
    lines += [f"- Versions: {versions}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
