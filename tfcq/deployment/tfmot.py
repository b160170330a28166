"""Quantization-aware fine-tuning by tensorflow-model-optimization, in a process of its own.

It knows Keras 2 alone, which a process chooses before it imports TensorFlow: the network is written
into a folder, built again there as it is, fine-tuned and converted.
"""

import dataclasses
import importlib.util
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from tfcq.errors import UserError

_PACKAGES = {
    "tensorflow_model_optimization": "tensorflow-model-optimization",
    "tf_keras": "tf_keras",
}
_NETWORK, _ARRAYS, _FILE, _FIGURES, _SIMULATED, _ERROR = (
    "network.json", "arrays.npz", "network.tflite", "figures.json", "simulated.npy", "error.txt",
)  # fmt: skip
# What a layer computes, without how it was made.
_IDLE = ("dtype", "trainable", "activity_regularizer")
_MADE = ("initializer", "regularizer", "constraint")
# Outputs of the network as it was and as it was built again.
_TOLERANCE = 1e-5
_CHECKED = 32


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
        (folder / _NETWORK).write_text(json.dumps({**network, **settings, "seed": seed}))
        arrays: dict[str, Any] = {"images": images, "labels": labels, **weights}
        arrays["test_images"] = images[:0] if test_images is None else test_images
        arrays["outputs"] = np.asarray(model(images[:_CHECKED], training=False))
        np.savez(folder / _ARRAYS, **arrays)
        _run_apart(folder)
        figures = json.loads((folder / _FIGURES).read_text())
        return FineTuned(
            (folder / _FILE).read_bytes(), **figures, simulated=np.load(folder / _SIMULATED)
        )


def _check(model: Any, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any]) -> None:
    # Here alone, since the process apart has another Keras.
    from tfcq.deployment.tflite import check_classified

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
    """Runs `work` in a process with Keras 2.

    Raises:
        UserError: with what went wrong there, in one line.
    """
    found = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": found}
    done = subprocess.run(
        [sys.executable, "-m", "tfcq.deployment.tfmot", str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    error = folder / _ERROR
    last = (done.stderr.strip() or "no word").splitlines()[-1]
    told = error.read_text() if error.exists() else last
    raise UserError(f"tensorflow-model-optimization (exit {done.returncode}): {told}")


def _described(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the plain form of a model as JSON, and the weights of its layers."""
    from tfcq.integer.folded import folded
    from tfcq.nn.placement import read_graph

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
    (output,) = [name for name, one in found.items() if one.output is plain.outputs[0]]
    return {"layers": layers, "shape": plain.input_shape[1:], "output": output}, weights


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in config.items()
        if name not in _IDLE and not name.endswith(_MADE) and not isinstance(value, dict)
    }


def work(folder: pathlib.Path) -> None:
    """Does in the process apart what `tfmot_tflite` asks for.

    Args:
        folder: where the network stands, and what is made is put.
    """
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    asked = json.loads((folder / _NETWORK).read_text())
    arrays = np.load(folder / _ARRAYS)
    tf_keras.utils.set_random_seed(asked["seed"])
    network = _rebuilt(asked, arrays, tf_keras)
    images, labels = arrays["images"], arrays["labels"]
    outputs = arrays["outputs"]
    again = network.predict(images[:_CHECKED], verbose=0)
    difference = float(np.max(np.abs(again - outputs)) / np.max(np.abs(outputs)))
    if not difference <= _TOLERANCE:
        raise UserError(
            f"the network built again in Keras 2 differs by {difference:.2g} of its largest "
            f"output; allowed: {_TOLERANCE:g}."
        )

    def top1(model: Any) -> float:
        return float(np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels))

    quantized = tfmot.quantization.keras.quantize_model(network)
    _set_ranges(quantized, network, images, tf_keras)
    figures = {"difference": difference, "float_top1": top1(network)}
    figures["first_top1"] = top1(quantized)
    quantized.compile(
        tf_keras.optimizers.Adam(asked["learning_rate"]),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    curve = quantized.fit(
        images, labels, asked["batch_size"], epochs=asked["epochs"], verbose=0
    ).history["loss"]
    if not np.all(np.isfinite(curve)):
        raise UserError("the loss became NaN or infinite; try a lower learning_rate.")
    _set_pixels(quantized)
    figures["last_top1"] = top1(quantized)
    test_images = arrays["test_images"]
    simulated = quantized.predict(test_images, verbose=0) if len(test_images) else np.zeros((0, 0))
    one = tf.TensorSpec([1, *asked["shape"]], tf.float32)
    function = tf.function(lambda x: quantized(x, training=False)).get_concrete_function(one)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], quantized)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    (folder / _FILE).write_bytes(converter.convert())
    np.save(folder / _SIMULATED, simulated.astype(np.float32))
    (folder / _FIGURES).write_text(json.dumps({**figures, "losses": curve}))


def _rebuilt(asked: dict[str, Any], arrays: Any, tf_keras: Any) -> Any:
    """Returns the network of a description, with its weights."""
    made: dict[str, Any] = {}
    inputs = None
    for one in asked["layers"]:
        if one["kind"] == "InputLayer":
            inputs = made[one["name"]] = tf_keras.Input(asked["shape"], name=one["name"])
            continue
        kind = getattr(tf_keras.layers, one["kind"], None)
        if kind is None:
            raise UserError(f"layer {one['name']!r} is a {one['kind']}, which Keras 2 has not.")
        known = {*inspect.signature(kind.__init__).parameters, "name"}
        layer = kind(**{name: v for name, v in one["config"].items() if name in known})
        sources = [made[name] for name in one["producers"]]
        made[one["name"]] = layer(sources if len(sources) > 1 else sources[0])
        count = len(layer.weights)
        layer.set_weights([arrays[f"{one['name']}/{number}"] for number in range(count)])
    return tf_keras.Model(inputs, made[asked["output"]])


def _set_ranges(quantized: Any, network: Any, images: np.ndarray, tf_keras: Any) -> None:
    """Starts the ranges of kernels and of activations at those of the float network."""
    # Those of kernels follow a training pass.
    quantized(images[:_CHECKED], training=True)
    names = {f"quant_{layer.name}": layer for layer in network.layers}
    held = [layer for layer in quantized.layers if layer.name in names and _range(layer)]
    outputs = tf_keras.Model(network.inputs, [names[layer.name].output for layer in held])
    for layer, values in zip(held, outputs.predict(images[:512], verbose=0), strict=True):
        low, high = _range(layer)
        low.assign(min(0.0, float(values.min())))
        high.assign(max(0.0, float(values.max())))
    _set_pixels(quantized)


def _set_pixels(quantized: Any) -> None:
    """Sets the range of the input to that of pixels, so that each level is one of theirs."""
    for layer in quantized.layers:
        if type(layer).__name__ == "QuantizeLayer":
            for variable, value in zip(_range(layer), (0.0, 1.0), strict=True):
                variable.assign(value)


def _range(layer: Any) -> list[Any]:
    """Returns the variables of the least and the greatest output of a layer, if it has them."""
    endings = [[v for v in layer.variables if f"_{end}:" in v.name and "kernel" not in v.name]
               for end in ("min", "max")]  # fmt: skip
    return [found[-1] for found in endings if found]


def _main() -> None:
    folder = pathlib.Path(sys.argv[1])
    try:
        work(folder)
    except Exception as error:
        # Whatever the library refuses, in the words it has for it.
        line = " ".join(str(error).split())[:300]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        (folder / _ERROR).write_text(f"{kind}{line}")
        raise SystemExit(2) from None


if __name__ == "__main__":
    _main()
