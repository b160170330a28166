"""Quantization-aware fine-tuning by tensorflow-model-optimization, in a process of its own.

It knows Keras 2 alone, which a process chooses before it imports TensorFlow: the network is written
into a folder, built again there as it is, fine-tuned and converted.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from tfcq.deployment import tfmot_process
from tfcq.deployment.tflite import check_classified
from tfcq.deployment.tfmot_process import ARRAYS, CHECKED, ERROR, FIGURES, FILE, NETWORK, SIMULATED
from tfcq.errors import UserError
from tfcq.integer.folded import folded
from tfcq.integer.replay import output_names
from tfcq.nn.placement import read_graph

_PACKAGES = {
    "tensorflow_model_optimization": "tensorflow-model-optimization",
    "tf_keras": "tf_keras",
}
# What a layer computes, without how it was made.
_IDLE = ("dtype", "trainable", "activity_regularizer")
_MADE = ("initializer", "regularizer", "constraint")


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """A network that tensorflow-model-optimization fine-tuned.

    Args:
        content: the bytes of its `.tflite` file: int8, pixels uint8, scores float32.
        losses: mean cross-entropy of each epoch.
        difference: largest difference of the outputs of the network as it was built again, over the
            largest output.
        float_top1: share of the training images that the float network classifies right.
        first_top1: that of the quantized network before it was fine-tuned.
        last_top1: and after that.
        simulated: float32 [count, classes], what the quantized network makes of `test_images`.
    """

    content: bytes
    losses: list[float]
    difference: float
    float_top1: float
    first_top1: float
    last_top1: float
    simulated: np.ndarray


def tfmot_tflite(
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    seed: int = 0,
    test_images: np.ndarray | None = None,
) -> FineTuned:
    """Fine-tunes a classifier in simulated int8 and returns its int8 TFLite model.

    Batch norms are part of the kernels before them from the start, and ranges of activations start
    at those of the float network: of themselves they would move there from -6 to 6 by a thousandth
    of the way in a step.

    Args:
        model: functional model of images in [0, 1] to logits, quantizable or not, such as
            `with_probe` makes of a backbone.
        images: float32 [count, height, width, channels].
        labels: int [count].
        epochs: passes over the images.
        learning_rate: of Adam.
        batch_size: images a step.
        seed: of the order of the images.
        test_images: as `images`, those of `FineTuned.simulated`.

    Raises:
        UserError: on other images or labels, or when the package is not installed, cannot quantize
            a layer, or the network cannot be built again.
    """
    missing = [name for module, name in _PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(
            f"Fine-tuning by tensorflow-model-optimization needs {' and '.join(missing)}; install "
            f"with `pip install {' '.join(missing)}`."
        )
    settings = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    _check(model, images, labels, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        network, weights = _described(model)
        (folder / NETWORK).write_text(json.dumps({**network, **settings, "seed": seed}))
        arrays: dict[str, Any] = {"images": images, "labels": labels, **weights}
        arrays["test_images"] = images[:0] if test_images is None else test_images
        arrays["outputs"] = np.asarray(model(images[:CHECKED], training=False))
        np.savez(folder / ARRAYS, **arrays)
        _run_apart(folder)
        figures = json.loads((folder / FIGURES).read_text())
        return FineTuned(
            (folder / FILE).read_bytes(), **figures, simulated=np.load(folder / SIMULATED)
        )


def _check(model: Any, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise UserError(f"{name}={value} was received; allowed: above 0.")
    check_classified(model, images)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"Labels of type {labels.dtype} and shape {labels.shape} were received; allowed: "
            f"integers, one for each of the {len(images)} images."
        )
    classes = model.output_shape[-1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise UserError(
            f"Label {wrong[0]} was received; allowed: 0 to {classes - 1}, as model {model.name!r} "
            f"returns {classes} scores."
        )


def _run_apart(folder: pathlib.Path) -> None:
    """Runs `tfmot_process` in a process with Keras 2.

    Raises:
        UserError: with what went wrong there, in one line.
    """
    found = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": found}
    done = subprocess.run(
        [sys.executable, "-m", tfmot_process.__name__, str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    error = folder / ERROR
    last = (done.stderr.strip() or "no word").splitlines()[-1]
    told = error.read_text() if error.exists() else last
    raise UserError(f"tensorflow-model-optimization (exit {done.returncode}): {told}")


def _described(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the plain form of a model as JSON, and the weights of its layers."""
    plain = folded(model).model
    found = {operation.name: operation for operation in plain.operations}
    layers, weights = [], {}
    for name, node in read_graph(plain.get_config()).items():
        operation = found[name]
        layers.append(
            {
                "kind": node.kind,
                "name": name,
                "config": _kept(operation.get_config()),
                "producers": list(node.producers),
            }
        )
        for number, value in enumerate(getattr(operation, "weights", [])):
            weights[f"{name}/{number}"] = np.asarray(value)
    (output,) = output_names(plain)
    return {"layers": layers, "shape": plain.input_shape[1:], "output": output}, weights


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in config.items()
        if name not in _IDLE and not name.endswith(_MADE) and not isinstance(value, dict)
    }
