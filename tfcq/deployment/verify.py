"""Runs the gate on a file and images: what `tfcq.verify` and `tfcq.export` report."""

import pathlib
from typing import Any

import numpy as np

from tfcq.data.image_stream import Images, image_batches
from tfcq.deployment.gate import Simulate, gate, gate_figures, input_form, whole_batches
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.assumed_pixels import check_assumed_range
from tfcq.evaluation.data import labelled_images
from tfcq.evaluation.file_subject import taken_range
from tfcq.evaluation.subject import chosen_data
from tfcq.integer.emulation import emulate, kernels_of, rule_fault
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.micro import MicroModel
from tfcq.integer.runtime import LiteModel, as_levels, runtime_version
from tfcq.integer.trial import check_runs
from tfcq.settings.backbones import INPUT_RANGES
from tfcq.settings.evaluation_groups import EvaluationDataSettings
from tfcq.settings.kernels import MICRO, XNNPACK
from tfcq.settings.training_groups import DataSettings

_TOGETHER = 100


def verify(
    path: pathlib.Path, data: EvaluationDataSettings, count: int, input_range: str | None = None
) -> dict[str, Any]:
    """Returns what the gate finds of a file, on the test images of a data set.

    Args:
        path: the `.tflite` file.
        data: the data set.
        count: how many images are compared; fewer where the data set has fewer.
        input_range: the pixels that it takes, a name in `INPUT_RANGES`; None for what its input
            tells, else 0 to 1.

    Raises:
        UserError: on a file that is none, images that it does not take, or an operation without
            a rule.
    """
    content = path.read_bytes()
    file = LiteFile.read(content, str(path))
    shape = file.tensors[file.inputs[0]].shape if len(file.inputs) == 1 else ()
    if len(shape) != 4:
        raise UserError(
            f"{path} takes {len(file.inputs)} inputs, the first of shape {shape}; allowed: one, of "
            "images."
        )
    settings = chosen_data(data, DataSettings(dataset=str(data.dataset)))
    # As an application shows them, unless told otherwise.
    crop = 1.0 if data.test_crop is None else data.test_crop
    _, images = labelled_images(settings, shape, data.test_images, crop, fitted=False)
    taken = file.tensors[file.inputs[0]]
    name, assumed = taken_range(taken, str(path), input_range)
    check_runs(content, str(path), kernels_of(file))
    shapes = [file.tensors[index].shape for index in file.outputs]
    scores_classes = len(shapes) == 1 and shapes[0][1:] == (images.classes,)
    if assumed and scores_classes:
        model = LiteModel(content)
        labels = images.test_labels
        check_assumed_range(str(path), images.test_images, labels, lambda pixels, _: model(pixels))
    low, high = INPUT_RANGES[name]
    pixels = gate_images(images, count) * np.float32(high - low) + np.float32(low)
    figures = checked(file, pixels)
    outputs = figures.pop("outputs")
    if scores_classes:
        labels = images.test_labels[: figures["images"]]
        scores = {name: found[: len(labels)] for name, found in outputs.items()}
        figures |= class_figures(scores, labels)
    about = {"file": str(path), "dataset": settings.dataset, "bytes": len(content)}
    return {**about, "input_range": name, **figures}


def gate_images(images: LabelledImages, count: int) -> np.ndarray:
    """Returns the first test images and, where those are fewer, training images behind them.

    Args:
        images: the images.
        count: how many.
    """
    first = np.asarray(images.test_images[:count])
    more = np.asarray(images.train_images[: count - len(first)])
    return np.concatenate([first, more]) if len(first) < count else first


def checked(file: LiteFile, images: Images, simulate: Simulate | None = None) -> dict[str, Any]:
    """Returns what the gate finds, and by `outputs` what each set of kernels makes of the images.

    Args:
        file: the file.
        images: float [count, height, width, channels] in [0, 1].
        simulate: as for `tfcq.deployment.gate.gate`.
    """
    images = whole_batches(file, images)
    counts, outputs = gate(file, images, simulate)
    about = {"ai_edge_litert": runtime_version(), "outputs": outputs}
    return {**gate_figures(counts, len(images)), **about}


def micro_differences(file: LiteFile, model: MicroModel, images: Images) -> int | None:
    """Returns in how many outputs the emulation differs from the kernels of microcontrollers.

    Args:
        file: the file.
        model: the same, running.
        images: float [count, height, width, channels] in [0, 1].

    Returns:
        The number; None where an operation has no rule.
    """
    if any(rule_fault(file, one, MICRO) for one in file.operations):
        return None
    taken, count = file.tensors[file.inputs[0]], 0
    for batch in image_batches(images, _TOGETHER):
        expected = emulate(file, as_levels(batch, *input_form(taken)), MICRO)
        found = model(batch)
        found = found if isinstance(found, list) else [found]
        count += sum(
            int(np.sum(one != expected[index]))
            for one, index in zip(found, file.outputs, strict=True)
        )
    return count


def class_figures(scores: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Returns top-1 accuracy by kernels, and the share of images in XNNPACK's class.

    Args:
        scores: by kernels, float [count, classes].
        labels: int [count].
    """
    classes = {name: found.argmax(axis=-1) for name, found in scores.items()}
    return {
        "top1": {name: float(np.mean(found == labels)) for name, found in classes.items()},
        "same_class": {
            name: float(np.mean(found == classes[XNNPACK])) for name, found in classes.items()
        },
    }
