"""From the settings of an evaluation to the accuracies of its protocols."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from tfcq import build, quantization_aware
from tfcq.data.sources import Split
from tfcq.errors import UserError
from tfcq.evaluation import protocols
from tfcq.evaluation.accuracy import Accuracy, LabelledImages
from tfcq.evaluation.classifier import copy_of
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.knn import knn_scores
from tfcq.evaluation.linear import fit_linear_probe
from tfcq.evaluation.sweep import Scorer, by_scores, sweep
from tfcq.evaluation.task import Quantized, Task
from tfcq.evaluation_settings import (
    LEARNED_ROUNDINGS,
    USED_BY,
    CalibrationSettings,
    EvaluationConfig,
)
from tfcq.files import whole_file
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.plan import Plan, PostTraining, calibrator, check_plan
from tfcq.post_training.rounding import RoundingSettings
from tfcq.protocol_presets import PRESETS
from tfcq.quantization.bitwidths import FLOAT, BitWidth, parse_bit_width, parse_bit_widths
from tfcq.subject import Subject


def measure(
    config: EvaluationConfig, subject: Subject, task: Task
) -> Iterator[tuple[str, Accuracy]]:
    """Yields protocol and accuracy at each bit-width, as soon as it is known.

    Protocols that share features take turns at every bit-width; others follow one by one.

    Args:
        config: the settings.
        subject: what is evaluated.
        task: its backbone and images.

    Raises:
        UserError: when settings do not fit the data.
        TrainingStopped: when a protocol's training diverges.
    """
    frozen = task
    if config.measurement.from_scratch:
        keras.utils.set_random_seed(task.seed)
        frozen = dataclasses.replace(task, backbone=copy_of(task.backbone, weights=False))
    shared = {
        name: scorer
        for name in config.protocols()
        if (scorer := _scorer(config, frozen, name)) is not None
    }
    if shared:
        features = QuantizedFeatures(frozen.quantized(copy_of(frozen.backbone)))
        for name, result in sweep(features, frozen.data, frozen.bit_widths, shared):
            yield name, _told(name, result, task)
    measurement = config.measurement
    for name in config.protocols():
        if name in shared:
            continue
        augmentation = subject.augmentation(config, task.data.train_images, name)
        task, frozen = (
            dataclasses.replace(one, augmentation=augmentation) for one in (task, frozen)
        )
        training = build.training(config.optimization(name)) if name in PRESETS else None
        keep = functools.partial(_keep, config, subject, name)
        if name == "classifier":
            results = protocols.classify(task, task.backbone)
        elif name == "linear":
            results = protocols.linear_augmented(frozen, training, _is_standardized(config))
        elif name == "finetune":
            results = protocols.finetune(
                task, training, measurement.label_share, measurement.from_scratch, keep
            )
        elif name == "semi":
            results = protocols.semi(
                task, training, measurement.label_share, measurement.from_scratch, keep
            )
        else:
            results = quantization_aware.qat(config, subject, task, training, keep)
        for result in results:
            yield name, _told(name, result, task)


def _told(protocol: str, result: Accuracy, task: Task) -> Accuracy:
    """Prints an accuracy; returns it with what was chosen after training."""
    print(f"{protocol:>10} {result.bits:>6}  top-1 {100 * result.top1:.1f}", flush=True)
    if "mixed_precision" not in USED_BY[protocol]:
        # Trained at its bit-width: nothing is chosen after training.
        return result
    chosen = task.chosen(parse_bit_width(result.bits))
    if mixed := chosen.get("weight_bits"):
        layers = ", ".join(f"{name} {bits}" for name, bits in mixed.items())
        print(f"{'':>10} weight bits: {layers}", flush=True)
    return dataclasses.replace(result, **chosen)


def task_of(
    config: EvaluationConfig,
    subject: Subject,
    split: Split,
    data: LabelledImages,
    calibration: np.ndarray,
) -> Task:
    """Returns the task of an evaluation.

    Args:
        config: the settings.
        subject: what is evaluated.
        split: the labelled training images.
        data: the same as arrays, and the test images.
        calibration: float array [count, height, width, channels], the calibration images.

    Raises:
        UserError: when settings do not fit the data.
    """
    _check_sizes(config, len(data.train_images))
    curve_images, images = config.measurement.curve_images, len(data.test_images)
    if curve_images is not None and curve_images > images:
        raise UserError(
            f"--curve_images={curve_images} with {images} test images; allowed: 1 to {images}."
        )
    if "classifier" in config.protocols():
        subject.check_classifier(data.classes)
    plan = post_training_plan(config)
    check_plan(subject.model, plan)
    if "finetune" in config.protocols():
        subject.check_learned_scales()
    if "qat" in config.protocols():
        subject.check_policy_for("qat")
        quantization_aware.check_start(config, subject, data)
    made: list[PostTraining] = []

    def post_training(model: QuantizableModel) -> Quantized:
        made.append(PostTraining(model, calibration, plan))
        return made[-1].at

    return Task(
        backbone=subject.model,
        split=split,
        data=data,
        image_size=data.train_images.shape[1],
        augmentation=subject.augmentation(config, data.train_images),
        bit_widths=parse_bit_widths(config.measurement.bits),
        calibrator=lambda model: calibrator(model, calibration, plan),
        seed=config.measurement.seed,
        curve_images=config.measurement.curve_images,
        post_training=post_training,
        chosen=lambda bits: made[-1].chosen(bits) if made else {},
    )


def post_training_plan(config: EvaluationConfig) -> Plan:
    """Returns the steps after training that an evaluation asks for.

    Args:
        config: the settings.
    """
    steps = dataclasses.asdict(config.post_training)
    iterations = steps.pop("rounding_iterations")
    if steps["rounding"] not in LEARNED_ROUNDINGS:
        # That of the quantizers themselves, see `open_subject`.
        steps["rounding"] = "nearest"
    learning = RoundingSettings(iterations=iterations, seed=config.measurement.seed)
    return Plan(
        calibration=config.calibration.calibration,
        calibration_pass=config.calibration.calibration_pass,
        # Ranges that were asked for in another way than usual are recorded anew.
        keep_ranges=config.calibration == CalibrationSettings(),
        learning=learning,
        **steps,
    )


def stem_of(config: EvaluationConfig, protocol: str) -> str:
    """Returns the name of a protocol's files, without suffix.

    Args:
        config: the settings.
        protocol: the protocol.
    """
    measurement = config.measurement
    parts = [protocol]
    if protocol == "qat":
        parts.append(measurement.quantizer)
    if measurement.label_share is not None and "label_share" in USED_BY[protocol]:
        parts.append(f"{100 * measurement.label_share:g}")
    if measurement.from_scratch and "from_scratch" in USED_BY[protocol]:
        parts.append("from_scratch")
    return "_".join(parts)


def check_kept(config: EvaluationConfig, subject: Subject) -> None:
    """Refuses to replace a classifier that an earlier evaluation kept.

    Args:
        config: the settings.
        subject: what is evaluated.

    Raises:
        UserError: naming the file.
    """
    if not config.measurement.keep_classifiers:
        return
    for protocol in config.protocols():
        widths = parse_bit_widths(config.measurement.bits) if protocol != "finetune" else (FLOAT,)
        for bits in widths:
            file = _kept_file(config, subject, protocol, bits)
            if protocol in ("finetune", "semi", "qat") and file.exists():
                raise UserError(f"{file} exists; move it away, or leave out --keep_classifiers.")


def _kept_file(
    config: EvaluationConfig, subject: Subject, protocol: str, bits: BitWidth
) -> pathlib.Path:
    return subject.results / f"{stem_of(config, protocol)}_{bits}.keras"


def _keep(
    config: EvaluationConfig,
    subject: Subject,
    protocol: str,
    bits: BitWidth,
    network: QuantizableModel,
) -> None:
    """Writes a trained network beside the results, if that was asked for."""
    if not config.measurement.keep_classifiers:
        return
    file = _kept_file(config, subject, protocol, bits)
    with whole_file(file) as temporary:
        network.save(temporary)
    print(f"Classifier: {file}", flush=True)


def _check_sizes(config: EvaluationConfig, images: int) -> None:
    """Refuses a batch or a neighbourhood that was asked for and is larger than the data."""
    neighbours = config.measurement.neighbours
    asked = [("batch_size", config.training.batch_size)]
    if neighbours != type(config.measurement)().neighbours:
        asked.append(("neighbours", neighbours))
    for name, value in asked:
        if value is not None and value > images:
            raise UserError(
                f"--{name}={value} with {images} training images; allowed: 1 to {images}."
            )


def _is_standardized(config: EvaluationConfig) -> bool:
    return config.training.preset in (None, "standardized")


def _scorer(config: EvaluationConfig, task: Task, protocol: str) -> Scorer | None:
    """Returns how a protocol scores features; None where features are not all it needs."""
    measurement = config.measurement
    if protocol == "knn":
        options = measurement.neighbours, measurement.temperature
        return by_scores(lambda *features: knn_scores(*features, *options), task.data)
    if protocol != "linear" or measurement.features != "cached":
        return None
    settings, standardized = config.optimization("linear"), _is_standardized(config)
    # The probe's own arithmetic knows SGD under a cosine alone.
    as_probe = standardized and settings == dataclasses.replace(
        PRESETS["linear"]["standardized"],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        # No image is cropped here: the flag is for a protocol beside this one.
        crop_area=settings.crop_area,
    )
    if not as_probe:
        return protocols.linear_cached(task, build.training(settings), standardized)

    def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
        return fit_linear_probe(
            train,
            labels,
            classes,
            settings.epochs,
            settings.learning_rate,
            settings.momentum,
            settings.batch_size,
            measurement.seed,
        ).logits(test)

    return by_scores(probe, task.data)
