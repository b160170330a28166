"""Runs a detection: trains a detector, quantizes it at each bit-width, scores and draws."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import keras
import tensorflow as tf

from tfcq.command_line import stage
from tfcq.data.boxed.box_batches import plain_batches, training_batches
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.pipeline import steps_per_epoch
from tfcq.detection.average_precision import Detections, Truth, voc_figures
from tfcq.detection.coco_precision import coco_figures
from tfcq.detection.detector import Detector
from tfcq.detection.kinds import detector_from
from tfcq.detection.pictures import draw_found
from tfcq.detection.quantized import post_training
from tfcq.detection.truths import truths_of
from tfcq.errors import UserError
from tfcq.evaluation.records import versions, weights_fingerprint
from tfcq.files import parse_json, read_text, whole_file, write_text
from tfcq.nn.cloning import copy_of
from tfcq.nn.loading import load
from tfcq.post_training.plan import Plan
from tfcq.post_training.rounding import RoundingSettings
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.protocol_groups import LEARNED_ROUNDINGS
from tfcq.settings.training import total_steps
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.history import HistoryFile, Progress
from tfcq.training.optimizers import optimizer_from

_TOGETHER = 16


@dataclasses.dataclass(frozen=True)
class _Data:
    train: BoxedSplit
    test: BoxedSplit
    names: tuple[str, ...]
    shorter: tuple[int, ...]
    longest: int


def detect(config: DetectionConfig) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """Trains, quantizes, scores and draws a detector; what is there already is not done again.

    Args:
        config: the settings.

    Returns:
        The record, and the files.

    Raises:
        UserError: when backbone or data cannot be had or do not fit each other, or the folder
            holds another detector.
    """
    folder = config.folder
    data = _opened(config)
    backbone = load(config.backbone_file)
    keras.utils.set_random_seed(config.measurement.seed)
    if config.subject.from_scratch:
        backbone = copy_of(backbone, weights=False)
    detector = detector_from(config, backbone, len(data.names), max(data.shorter))
    _check_channels(backbone, data, config)
    _begin(config, folder)
    train(config, detector, data, folder)
    plain = plain_batches(data.test, _TOGETHER, max(data.shorter), data.longest, detector.stride)
    truths = truths_of(data.test, config.masks)
    record = {
        "protocol": config.measurement.protocol, "detector": config.detector.detector,
        "dataset": config.data.dataset, "classes": len(data.names),
        "train_images": data.train.size, "test_images": data.test.size,
        "quantize": config.measurement.quantize, "policy": config.detector.policy,
        "weights": weights_fingerprint(detector), "plan": dataclasses.asdict(_plan(config)),
        "settings": config.trained_alike(), "versions": versions(),
    }  # fmt: skip
    results, drawn = [], {}
    at = _quantizer(config, detector, data)
    for bits in config.bit_widths:
        stage(f"{bits}: {data.test.size:,} test images")
        found = found_at(detector if bits.is_float else at(bits), plain, bits)
        entry = {"bits": str(bits), **scores(truths, found, len(data.names))}
        _tell(entry)
        results.append(entry)
        drawn[str(bits)] = found[: config.measurement.pictures]
    file = folder / f"{config.measurement.protocol}.json"
    write_text(file, json.dumps({**record, "results": results}, indent=2) + "\n")
    files = [file]
    if config.measurement.pictures:
        files.append(draw_found(file.with_suffix(".png"), data.test, truths, drawn, data.names))
    return {**record, "results": results}, files


def train(config: DetectionConfig, detector: Detector, data: _Data, folder: pathlib.Path) -> None:
    """Trains a detector from its newest checkpoint to its end, and saves its networks.

    Args:
        config: the settings.
        detector: the detector.
        data: the images.
        folder: where everything is written.
    """
    batch_size = config.training.batch_size
    steps = steps_per_epoch(data.train, batch_size)
    total = total_steps(config.training, steps)
    epochs = math.ceil(total / steps)
    optimizer = optimizer_from(config.training, steps)
    optimizer.clipnorm = config.training.clip_gradient or None
    detector.compile(optimizer)
    checkpoints = RunCheckpoints(folder / "checkpoints", detector)
    done = checkpoints.restore()
    if done >= epochs:
        print(f"{folder}: all {epochs} epochs are trained.")
        return
    print(f"{folder}: {data.train.size} images, {steps} steps an epoch, epochs {done} to {epochs}")
    batches = training_batches(
        data.train, batch_size, data.shorter, data.longest, config.measurement.seed, done,
        config.data.flip, detector.stride,
    )  # fmt: skip
    detector.fit(
        batches, epochs=epochs, initial_epoch=done, steps_per_epoch=steps, verbose=0, shuffle=False,
        callbacks=[
            HistoryFile(folder / "history.csv", done), Progress(total, steps, done), checkpoints
        ],
    )  # fmt: skip
    for name, part in detector.parts.items():
        with whole_file(folder / f"{name}.keras") as temporary:
            part.save(temporary)


def found_at(detector: Detector, plain: tf.data.Dataset, bits: BitWidth) -> list[Detections]:
    """Returns what a detector finds in images at a bit-width.

    Args:
        detector: the detector as it is run there.
        plain: the images, from `plain_batches`.
        bits: the bit-width.
    """
    precision = None if bits.is_float else Precision(bits.weights, bits.activations)
    return list(detector.found(plain, precision))


def scores(
    truths: list[Truth], found: list[Detections], class_count: int
) -> dict[str, dict[str, float | None]]:
    """Returns average precision in percent, in COCO's form and in that of VOC 2007.

    Of masks, where there are any, in COCO's form too.

    Args:
        truths: the boxes of each image.
        found: what was found in each.
        class_count: number of classes.
    """
    forms: dict[str, dict[str, float | None]] = {
        "coco": coco_figures(truths, found, class_count),
        "voc07": dict(voc_figures(truths, found, class_count)),
    }
    if any(one.masks is not None for one in truths):
        forms["coco_masks"] = coco_figures(truths, found, class_count, masks=True)
    return forms


def _opened(config: DetectionConfig) -> _Data:
    wanted = config.data
    source = open_boxes(wanted.dataset, wanted.data_dir, wanted.download, config.masks)
    train, test = source.split("train"), source.split("test")
    if wanted.test_images:
        test = test.first(wanted.test_images)
    sides = wanted.shorter_sides
    if sides is None:
        height, width, _ = train.image_shape
        if height is None or width is None:
            raise UserError(
                f"Images of {wanted.dataset!r} have several sizes; give --shorter_side, such as "
                "480,512,544,576,608,640,672,704,736,768,800."
            )
        sides = (min(height, width),)
    return _Data(train, test, tuple(train.class_names or ()), sides, wanted.longest_side)


def _check_channels(backbone: keras.Model, data: _Data, config: DetectionConfig) -> None:
    taken, given = backbone.input_shape[-1], data.train.image_shape[2]
    if taken != given:
        raise UserError(
            f"Images of {config.data.dataset!r} have {given} channels; the backbone takes {taken}."
        )


def _begin(config: DetectionConfig, folder: pathlib.Path) -> None:
    """Notes what a detector is trained with, or refuses a folder that holds another one."""
    file, asked = folder / "config.json", config.trained_alike()
    if not file.exists():
        write_text(file, json.dumps(asked, indent=2) + "\n")
        return
    kept = parse_json(read_text(file), str(file))
    changed = [
        f"{name}: {kept.get(name)!r} -> {value!r}" for name, value in asked.items()
        if kept.get(name) != value
    ]  # fmt: skip
    if changed:
        raise UserError(
            f"{folder} holds another detector ({'; '.join(changed)}); give the same settings to go "
            "on with it, or another --output_dir."
        )


def _plan(config: DetectionConfig) -> Plan:
    steps = dataclasses.asdict(config.post_training)
    iterations = steps.pop("rounding_iterations")
    if steps["rounding"] not in LEARNED_ROUNDINGS:
        steps["rounding"] = "nearest"
    learning = RoundingSettings(iterations=iterations, seed=config.measurement.seed)
    return Plan(
        calibration=config.measurement.calibration, keep_ranges=False, learning=learning, **steps
    )


def _quantizer(config: DetectionConfig, detector: Detector, data: _Data) -> Any:
    """Returns what gives the detector at a bit-width."""
    if all(bits.is_float for bits in config.bit_widths):
        return None
    images = data.train.first(min(config.measurement.calibration_images, data.train.size))
    stage(f"Ranges from {images.size} images")
    batches = plain_batches(images, 8, max(data.shorter), data.longest, detector.stride)
    return post_training(detector, batches, _plan(config))


def _tell(entry: dict[str, Any]) -> None:
    figures = "  ".join(
        f"{form} {name} {value:.1f}"
        for form, of_form in entry.items()
        if form != "bits"
        for name, value in of_form.items()
        if value is not None and name in ("AP", "AP50", "AP75")
    )
    print(f"{entry['bits']:>6}  {figures}", flush=True)
