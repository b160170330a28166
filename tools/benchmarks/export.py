"""Int8 files beside float ones and those of LiteRT's own converter.

Networks with random weights, one thread, XNNPACK's kernels; the files take turns in one process.
"""

import argparse
from typing import Any

from benchmarks.alone import alone

_SIZES = {"ResNet-18, width 16": 32, "MobileNetV2": 96}
_CONVERTER = "int8, LiteRT's converter"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds how often each file is timed."""
    parser.add_argument("--repeats", type=int, default=500, help="timed calls of each file")


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each network and file."""
    rows = []
    for name, size in _SIZES.items():
        found = alone("export:timed", name, arguments.repeats)
        for file, taken in found.items():
            row = {"network": name, "image": f"{size} x {size}", "file": file, "ms": taken}
            rows.append({**row, "times as fast as float32": found["float32"] / taken})
    return rows


def converted(model: Any, images: Any) -> bytes:
    """Returns the int8 file that LiteRT's converter makes.

    Args:
        model: the network.
        images: float32, which set its ranges.
    """
    import tensorflow as tf

    from tfcq import native_messages

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[None]] for one in images)
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
    import keras
    import numpy as np

    import tfcq
    from tfcq.deployment.check import median_seconds
    from tfcq.deployment.tflite import float_tflite
    from tfcq.integer.runtime import LiteModel

    keras.utils.set_random_seed(0)
    shape = (_SIZES[name], _SIZES[name], 3)
    if name == "MobileNetV2":
        kind = keras.applications.MobileNetV2
        model = kind(shape, weights=None, include_top=False, pooling="avg")
    else:
        model = tfcq.resnet(18, "cifar", 16, shape)
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
