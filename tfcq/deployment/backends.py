"""Who makes an int8 file of a network: this library, or another one behind the same gate."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfcq.command_line import stage
from tfcq.deployment.ai_edge_quantizer import quantizer_tflite
from tfcq.deployment.gate import Simulate, simulated_levels
from tfcq.deployment.tflite import calibrated_form
from tfcq.deployment.tfmot import tfmot_tflite
from tfcq.errors import UserError
from tfcq.evaluation.classifier import with_probe
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import LinearProbe
from tfcq.integer.form import is_form, with_dense
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.operations import is_float
from tfcq.integer.writing import written
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.deployment import OWN, QUANTIZER, TFMOT, ExportSettings

Extract = Callable[[Any], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A file, and what its maker knows of it.

    Args:
        file: the file.
        extract: what its simulation makes of images, float [count, width]; None without one.
        simulated: that of the test images.
        levels: as `extract`, by tensor of the file, see `simulated_levels`.
        figures: what is told of how it was made.
        floats: names of layers that are computed in float.
    """

    file: LiteFile
    extract: Extract | None = None
    simulated: np.ndarray | None = None
    levels: Simulate | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    floats: tuple[str, ...] = ()


def probed(model: QuantizableModel, probe: LinearProbe) -> QuantizableModel:
    """Returns a quantizable model with a linear probe behind it.

    Args:
        model: from images to features; the integer form of a network stays one.
        probe: the probe.
    """
    if not is_form(model):
        return with_probe(model, probe)
    return with_dense(model, *probe.dense())


def _own(evaluation: Evaluation, model: QuantizableModel, settings: ExportSettings) -> Made:
    (bits,) = evaluation.bit_widths
    stage(f"Converting to int8, ranges from {len(evaluation.calibration_images):,} images")
    quantized = evaluation.post_training(model).at(bits)
    form = calibrated_form(quantized.model, evaluation.calibration_images)
    made = written(form, bits, settings.batch, settings.storage)
    _check_stored(made.file, settings)
    features = FeatureExtractor(form)

    def extract(images: Any) -> np.ndarray:
        return features(images, bits)

    return Made(
        made.file,
        extract,
        extract(evaluation.data.test_images),
        simulated_levels(form, made, bits),
        {"ranges": quantized.ranges},
        tuple(layer.name for layer in form.operations if is_float(layer)),
    )


def _check_stored(file: LiteFile, settings: ExportSettings) -> None:
    """Tells which kernels a storage of 4 bits does not hold.

    Raises:
        UserError: when it holds none.
    """
    if settings.storage != "int4":
        return
    kernels = [one for one in file.tensors if one.name.endswith("/kernel")]
    wide = [one.name.removesuffix("/kernel") for one in kernels if one.dtype != "int4"]
    if len(wide) == len(kernels):
        raise UserError(
            "--storage=int4 holds no kernel of this network, all of which keep more than 4 bits "
            "under its policy; leave it out, or pass --layer_bits=NAME:4w8a."
        )
    if wide:
        print(f"Stored as int8, with more bits than 4: {', '.join(wide)}.", flush=True)


def _tfmot(evaluation: Evaluation, model: QuantizableModel, settings: ExportSettings) -> Made:
    data = evaluation.data
    stage(f"Fine-tuning by tensorflow-model-optimization, {settings.epochs} epochs")
    tuned = tfmot_tflite(
        model,
        np.asarray(data.train_images, np.float32),
        data.train_labels,
        settings.epochs,
        settings.learning_rate,
        settings.batch_size,
        evaluation.seed,
        np.asarray(data.test_images, np.float32),
    )
    told = dataclasses.asdict(tuned)
    figures = {name: value for name, value in told.items() if name not in ("content", "simulated")}
    return Made(
        LiteFile.read(tuned.content), simulated=tuned.simulated, figures={"fine_tuning": figures}
    )


def _quantizer(evaluation: Evaluation, model: QuantizableModel, settings: ExportSettings) -> Made:
    images = evaluation.calibration_images
    stage(f"Quantizing by ai-edge-quantizer, ranges from {len(images):,} images")
    content = quantizer_tflite(model, images, evaluation.config.measurement.bits)
    return Made(LiteFile.read(content))


MAKERS: dict[str, Callable[[Evaluation, QuantizableModel, ExportSettings], Made]] = {
    OWN: _own,
    TFMOT: _tfmot,
    QUANTIZER: _quantizer,
}
