"""Runs a detection: trains a detector, quantizes it at each bit-width, scores and draws."""

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcq.command_line import stage
from tfcq.data.boxed.annotated_folder import AnnotatedFolder
from tfcq.detection.average_precision import Detections
from tfcq.detection.backbone import opened_backbone
from tfcq.detection.beforehand import other_channels
from tfcq.detection.boxed_data import BoxedData, boxed_data
from tfcq.detection.coco_results import coco_results
from tfcq.detection.deployed import deployed, write_deployed
from tfcq.detection.detector import Detector
from tfcq.detection.earlier import CONFIG, check_earlier, is_begun, measured
from tfcq.detection.kinds import detector_from
from tfcq.detection.pictures import draw_found
from tfcq.detection.quantized import post_training
from tfcq.detection.scores import BY_CLASS, scores
from tfcq.detection.training import load_trained, train, trained_at
from tfcq.detection.truths import truths_of
from tfcq.errors import UserError
from tfcq.evaluation.records import versions, weights_fingerprint
from tfcq.files import write_text
from tfcq.nn.cloning import copy_of
from tfcq.post_training.plan import Plan
from tfcq.post_training.rounding import RoundingSettings
from tfcq.reporting.detection import plot_precisions
from tfcq.settings.bitwidths import BitWidth, parse_bit_width
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.policies import INT8
from tfcq.settings.protocol_groups import LEARNED_ROUNDINGS
from tfcq.settings.protocols import QAT
from tfcq.settings.run_lock import locked
from tfcq.training.determinism import make_deterministic


@contextlib.contextmanager
def _faults_of_files() -> Iterator[None]:
    """Turns what the reader of a file raised in a graph into what it was."""
    try:
        yield
    except tf.errors.OpError as error:
        told = re.search(rf"{UserError.__name__}: (.*)", error.message)
        if told is None:
            raise
        raise UserError(told[1]) from None


@_faults_of_files()
def detect(
    config: DetectionConfig, folder_of_boxes: AnnotatedFolder | None = None
) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """Trains, quantizes, scores and draws a detector; what is trained is not trained again.

    Args:
        config: the settings.
        folder_of_boxes: that of `--dataset=boxes:PATH`, where it was opened already.

    Returns:
        The record, with the bit-widths that were measured before, and the files.

    Raises:
        UserError: when backbone or data cannot be had or do not fit each other, the folder holds
            another detector, or an image can be read no more.
    """
    folder, measurement = config.folder, config.measurement
    if config.training.deterministic:
        make_deterministic()
    further = measurement.protocol == QAT.name
    trained_in = config.trained_in
    backbone = opened_backbone(config.subject)
    known = {"backbone": weights_fingerprint(backbone)}
    check_earlier(trained_in, config.trained_with() | known)
    if further:
        # The detector that it goes on from.
        check_earlier(folder, config.made_with() | known)
    data = boxed_data(config, backbone.input_shape[-1], folder_of_boxes)
    detector = _float_detector(config, data, backbone)
    if further:
        load_trained(detector, folder)
    with locked(trained_in, "output_dir"):
        if not is_begun(trained_in):
            text = json.dumps(config.trained_with() | known, indent=2)
            write_text(trained_in / CONFIG, text + "\n")
        return _detect(config, data, detector, trained_in)


def _detect(
    config: DetectionConfig, data: BoxedData, detector: Detector, trained_in: pathlib.Path
) -> tuple[dict[str, Any], list[pathlib.Path]]:
    folder, measurement = config.folder, config.measurement
    if measurement.protocol != QAT.name:
        train(detector, data, folder)
    record = _about(config, data, detector)
    file = trained_in / f"{config.record}.json"
    earlier = measured(file, record)
    # Not compared: records of before have none.
    record["class_names"] = list(data.names)
    truths, drawn, figures = truths_of(data.test, config.masks), {}, {}
    at, files = _at(config, detector, data, trained_in), [file]
    plain = data.plain(data.test, detector.stride)
    for bits in config.bit_widths:
        chosen = detector if bits.is_float else at(bits)
        stage(f"{bits}: {data.test.size:,} test images")
        found = found_at(chosen, plain, bits)
        figures[str(bits)] = scores(truths, found, data.names)
        _tell(str(bits), figures[str(bits)])
        drawn[str(bits)] = found[: measurement.pictures]
        # At once, so that nothing measured is lost when what follows fails.
        results = [{"bits": b, **scored} for b, scored in {**earlier, **figures}.items()]
        write_text(file, json.dumps({**record, "results": results}, indent=2) + "\n")
        if measurement.save_detections:
            steps = config.record.removeprefix(measurement.protocol)
            files.append(trained_in / f"detections_{bits}{steps}.json")
            write_text(files[-1], json.dumps(coco_results(data.test, found)) + "\n")
    if measurement.pictures:
        picture = trained_in / f"{config.record}_{'_'.join(drawn)}.png"
        files.append(draw_found(picture, data.test, truths, drawn, data.names))
    record["results"] = results
    files.append(plot_precisions(file.with_name(f"{file.stem}_precision.png"), record))
    if measurement.export_bits is not None:
        record["int8"], written = _exported(config, detector, data)
        files += written
    return record, files


def found_at(detector: Detector, plain: tf.data.Dataset, bits: BitWidth) -> list[Detections]:
    """Returns what a detector finds in images at a bit-width.

    Args:
        detector: the detector as it is run there.
        plain: the images, from `BoxedData.plain`.
        bits: the bit-width.
    """
    return list(detector.found(plain, bits))


def _float_detector(config: DetectionConfig, data: BoxedData, backbone: keras.Model) -> Detector:
    taken, given = backbone.input_shape[-1], data.train.image_shape[2]
    if taken != given:
        raise other_channels(config, given, taken)
    keras.utils.set_random_seed(config.measurement.seed)
    if config.subject.from_scratch:
        backbone = copy_of(backbone, weights=False)
    return detector_from(config, backbone, len(data.names), data.scored_side)


def _about(config: DetectionConfig, data: BoxedData, detector: Detector) -> dict[str, Any]:
    measurement = config.measurement
    plan = None
    if measurement.protocol != QAT.name:
        plan = dataclasses.asdict(_plan(config))
        # That of the quantizers themselves is none of the plan's steps.
        plan["rounding"] = config.post_training.rounding or plan["rounding"]
    found = {
        "protocol": measurement.protocol,
        "detector": config.detector.detector,
        "dataset": config.data.dataset,
        "classes": len(data.names),
        "train_images": data.train.size,
        "test_images": data.test.size,
        "quantize": measurement.quantize,
        "weights": weights_fingerprint(detector),
        "calibration_images": measurement.calibration_images,
        "post_training": plan,
        "settings": config.trained_with(),
        "versions": versions(),
    }
    # As JSON gives it back, or else equal settings would differ.
    return json.loads(json.dumps(found))


def _plan(config: DetectionConfig) -> Plan:
    steps = dataclasses.asdict(config.post_training)
    iterations = steps.pop("rounding_iterations")
    if steps["rounding"] not in LEARNED_ROUNDINGS:
        # That of the quantizers themselves.
        steps["rounding"] = "nearest"
    learning = RoundingSettings(iterations=iterations, seed=config.measurement.seed)
    return Plan(
        calibration=config.measurement.calibration, keep_ranges=False, learning=learning, **steps
    )


def _at(
    config: DetectionConfig, detector: Detector, data: BoxedData, folder: pathlib.Path
) -> Callable[[BitWidth], Detector]:
    """Returns what gives the detector at a bit-width: quantized after training, or trained at it.

    Args:
        config: the settings.
        detector: the float detector.
        data: the images.
        folder: where training at bit-widths is written.
    """
    if all(bits.is_float for bits in config.bit_widths):
        return lambda bits: detector
    batches, count = data.calibration(detector.stride)
    if config.measurement.protocol != QAT.name:
        stage(f"Ranges from {count} images")
        return post_training(detector, batches, _plan(config))

    def trained(bits: BitWidth) -> Detector:
        made = trained_at(detector, data, folder / str(bits), bits)
        # Quantizers that learn no scale get the ranges of such passes.
        plan = Plan(calibration_pass="quantized", keep_ranges=False)
        return post_training(made, batches, plan)(bits)

    return trained


def _exported(
    config: DetectionConfig, detector: Detector, data: BoxedData
) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """Writes the networks as int8 files; returns what the gate finds of each, and the files."""
    bits = parse_bit_width(str(config.measurement.export_bits))
    batches, _ = data.calibration(detector.stride)
    # Figures of a policy that leaves layers out are not the files'.
    policy = config.detector.policy
    apart = "" if policy == INT8.name else f" (policy {INT8.name}, not --policy={policy})"
    stage(f"Int8 files at {bits}{apart}, and the gate")
    folder = config.folder / "int8"
    gates = write_deployed(deployed(detector, batches, bits), bits, folder)
    figures = folder / f"gate_{bits}.json"
    write_text(figures, json.dumps(gates, indent=2) + "\n")
    return gates, [folder / f"{name}_{bits}.tflite" for name in gates] + [figures]


def _tell(bits: str, figures: dict[str, dict[str, Any]]) -> None:
    told = "  ".join(
        f"{form} {name} {value:.1f}"
        for form, found in figures.items()
        for name, value in found.items()
        if form != BY_CLASS and value is not None and name in ("AP", "AP50", "AP75")
    )
    print(f"{bits:>6}  {told}", flush=True)
