"""The networks of a detector as int8 files, each through the gate on what it reads.

Between them a detector computes in floats: anchors, suppression, RoIAlign. So every file but the
first takes floats.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfcq.deployment.gate import simulated_levels
from tfcq.deployment.verify import checked
from tfcq.detection.detector import Batch, Detector
from tfcq.files import whole_files
from tfcq.integer.form import deployable
from tfcq.integer.writing import Written, written
from tfcq.nn.calibration import Calibrator
from tfcq.nn.cloning import cloned, same_layer
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.float_model import float_model
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.bitwidths import BitWidth


@dataclasses.dataclass(frozen=True, eq=False)
class Deployed:
    """A network of a detector, at one size of what it reads.

    Args:
        name: the network's, with the size of its maps.
        form: its calibrated integer form.
        written: its file.
        inputs: what it reads, float [count, height, width, channels].
    """

    name: str
    form: QuantizableModel
    written: Written
    inputs: np.ndarray


def deployed(detector: Detector, batches: Iterable[Batch], bits: BitWidth) -> list[Deployed]:
    """Returns the int8 files of a detector's networks, one for each size of maps that they read.

    Args:
        detector: the float detector.
        batches: images for calibration in batches of one shape, from `BoxedData.calibration`.
        bits: bit-width of the weights, and 8 of the activations.

    Raises:
        UserError: on a layer that int8 runtimes do not have.
    """
    found = []
    read = detector.inputs_of_parts(batches)
    for number, (name, part) in enumerate(detector.parts.items()):
        by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
        for inputs in read[name]:
            by_size.setdefault(inputs.shape[1:], []).append(inputs)
        for shape, several in by_size.items():
            form = deployable(_fixed(float_model(part), shape), reads_images=number == 0)
            inputs = np.concatenate(several)
            Calibrator(form)(inputs)
            height, width, _ = shape
            sized = f"{name}_{height}x{width}"
            found.append(Deployed(sized, form, written(form, bits), inputs))
    return found


def write_deployed(
    several: list[Deployed], bits: BitWidth, folder: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Writes the files, and returns what the gate finds of each by its name.

    Args:
        several: the networks.
        bits: their bit-width.
        folder: where they are written.

    Raises:
        UserError: when something else stands there.
    """
    figures = {}
    with whole_files(folder) as made:
        for one in several:
            content = one.written.file.to_bytes()
            (made / f"{one.name}_{bits}.tflite").write_bytes(content)
            gate = checked(
                one.written.file, one.inputs, simulated_levels(one.form, one.written, bits)
            )
            del gate["outputs"]
            figures[one.name] = {"bytes": len(content), **gate}
    return figures


def _fixed(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    copy = cloned(model, same_layer, inputs=keras.Input(shape, name=model.inputs[0].name))
    copy_weights(model, copy)
    return copy
