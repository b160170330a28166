"""The process with Keras 2 in which tensorflow-model-optimization fine-tunes: see `tfmot`.

It imports nothing that imports Keras, which would be Keras 3 for the rest of this package.
"""

import inspect
import json
import pathlib
import sys
from typing import Any

import numpy as np

from tfcq.errors import UserError

NETWORK, ARRAYS, FILE, FIGURES, SIMULATED, ERROR = (
    "network.json", "arrays.npz", "network.tflite", "figures.json", "simulated.npy", "error.txt",
)  # fmt: skip
# Outputs of the network as it was and as it was built again.
CHECKED = 32
_TOLERANCE = 1e-5


def work(folder: pathlib.Path) -> None:
    """Does in the process apart what `tfmot_tflite` asks for.

    Args:
        folder: where the network stands, and what is made is put.
    """
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    asked = json.loads((folder / NETWORK).read_text())
    arrays = np.load(folder / ARRAYS)
    tf_keras.utils.set_random_seed(asked["seed"])
    network = _rebuilt(asked, arrays, tf_keras)
    images, labels = arrays["images"], arrays["labels"]
    outputs = arrays["outputs"]
    again = network.predict(images[:CHECKED], verbose=0)
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
    (folder / FILE).write_bytes(converter.convert())
    np.save(folder / SIMULATED, simulated.astype(np.float32))
    (folder / FIGURES).write_text(json.dumps({**figures, "losses": curve}))


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
    quantized(images[:CHECKED], training=True)
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
        (folder / ERROR).write_text(f"{kind}{line}")
        raise SystemExit(2) from None


if __name__ == "__main__":
    _main()
