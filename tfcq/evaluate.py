"""Scores a backbone or classifier at many bit-widths: `python -m tfcq.evaluate --run_dir=DIR`."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfcq import command_line
from tfcq.errors import UserError
from tfcq.evaluation_settings import (
    GROUPS,
    QAT_QUANTIZERS,
    EvaluationConfig,
    config_from_flags,
)
from tfcq.protocol_presets import PRESETS
from tfcq.quantization.bitwidths import BitWidth, parse_bit_widths

if TYPE_CHECKING:
    from tfcq.data.augmentation import Augmentation
    from tfcq.evaluation.accuracy import Accuracy
    from tfcq.evaluation.protocols import Task, Training
    from tfcq.subject import Subject


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet("Scores a trained backbone at many bit-widths.")
    for title, (_, default) in GROUPS.items():
        flags.add_settings(title, default)
    return flags


def main(command: command_line.Command) -> None:
    """Evaluates one run or model.

    Args:
        command: the parsed command line.
    """
    config = config_from_flags(command.values, command.given)
    parse_bit_widths(config.measurement.bits)
    from tfcq.subject import check_subject

    check_subject(config)
    command_line.quiet_start_up(command.values["verbosity"])
    evaluate(config)


def evaluate(config: EvaluationConfig) -> list[pathlib.Path]:
    """Calibrates, measures, prints a table of each protocol and writes JSON and picture.

    Args:
        config: the settings.

    Returns:
        The JSON file of each protocol.

    Raises:
        UserError: when the subject or the data cannot be had or do not fit each other.
        TrainingStopped: when a protocol's training diverges.
    """
    import keras

    from tfcq import build, evaluation_data
    from tfcq.evaluation.calibration import Calibrator
    from tfcq.evaluation.protocols import SetRanges, Task
    from tfcq.evaluation.records import data_fingerprint, weights_fingerprint
    from tfcq.post_training.observation import observe
    from tfcq.subject import open_subject

    measurement = config.measurement
    keras.utils.set_random_seed(measurement.seed)
    subject = open_subject(config)
    split, data = evaluation_data.labelled_images(
        subject.data, subject.model, config.data.test_images
    )
    chosen = config.calibration
    calibration = evaluation_data.calibration_images(
        data.train_images, chosen.calibration_images, chosen.calibration_seed
    )

    def calibrator(model: keras.Model) -> Callable[[], SetRanges]:
        if chosen.calibration == "minmax":
            calibrate = Calibrator(model)

            def recorded() -> SetRanges:
                calibrate(calibration)
                # The least and the greatest value are the range of every bit-width.
                return lambda bits: None

            return recorded

        def observed() -> SetRanges:
            observations = observe(model, calibration)

            def set_ranges(bits: BitWidth) -> None:
                if not bits.is_float:
                    observations.set_ranges(chosen.calibration, bits.activations)

            return set_ranges

        return observed

    _check_sizes(config, len(data.train_images))
    if "classifier" in config.protocols():
        subject.check_classifier(data.classes)
    size = data.train_images.shape[1]
    augmentation = subject.augmentation(size, data.train_images.shape[3])
    task = Task(
        backbone=subject.model,
        split=split,
        data=data,
        image_size=size,
        augmentation=augmentation,
        bit_widths=parse_bit_widths(measurement.bits),
        calibrator=calibrator,
        seed=measurement.seed,
    )
    about = {
        "dataset": subject.data.dataset,
        "subject": subject.name,
        "weights": weights_fingerprint(subject.model),
        "policy": subject.policy_name,
        "calibration": {
            "method": chosen.calibration,
            "images": len(calibration),
            "seed": chosen.calibration_seed,
        },
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "seed": measurement.seed,
        "data_fingerprint": data_fingerprint(data),
        "versions": build.versions(),
    }
    files = []
    for protocol, results in _measure(config, subject, task):
        files.append(_write(config, subject, protocol, results, about, augmentation))
    return files


def _measure(
    config: EvaluationConfig, subject: "Subject", task: "Task"
) -> Iterator[tuple[str, list["Accuracy"]]]:
    """Yields every protocol's accuracies when it has ended; those that share features together."""
    from tfcq.evaluation import protocols
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.evaluation.sweep import sweep

    shared = {
        name: scores for name in config.protocols() if (scores := _scores(config, name)) is not None
    }
    if shared:
        set_ranges, features = task.calibrator(task.backbone)(), FeatureExtractor(task.backbone)

        def at(images, bits):
            set_ranges(bits)
            return features(images, bits)

        found: dict[str, list[Accuracy]] = {name: [] for name in shared}
        for name, result in sweep(at, task.data, task.bit_widths, shared):
            _tell(name, result)
            found[name].append(result)
        yield from found.items()
    measurement = config.measurement
    for name in config.protocols():
        if name in shared:
            continue
        training = _training(config, name) if name in PRESETS else None
        if name == "classifier":
            results = protocols.classify(task, task.backbone)
        elif name == "linear":
            standardized = (config.training.preset or "standardized") == "standardized"
            augmented = measurement.features == "augmented"
            results = protocols.linear(task, training, augmented, standardized)
        elif name == "finetune":
            results = protocols.finetune(
                task, training, measurement.label_share, measurement.from_scratch
            )
        elif name == "semi":
            results = protocols.semi(
                task, training, measurement.label_share, measurement.from_scratch
            )
        else:
            results = _qat(config, subject, task, training)
        yield name, [_tell(name, result) for result in results]


def _tell(protocol: str, result: "Accuracy") -> "Accuracy":
    print(f"{protocol:>10} {result.bits:>6}  top-1 {100 * result.top1:.1f}", flush=True)
    return result


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


def _scores(config: EvaluationConfig, protocol: str):
    """Returns the function from features to scores of a protocol that is no more than one."""
    from tfcq.evaluation.knn import knn_scores
    from tfcq.evaluation.linear import fit_linear_probe

    measurement = config.measurement
    if protocol == "knn":
        options = measurement.neighbours, measurement.temperature
        return lambda train, labels, test, classes: knn_scores(
            train, labels, test, classes, *options
        )
    settings = config.optimization("linear") if protocol == "linear" else None
    # The probe's own arithmetic knows SGD under a cosine alone.
    as_probe = (
        settings is not None
        and measurement.features == "cached"
        and (
            dataclasses.replace(
                PRESETS["linear"]["standardized"],
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
            )
            == settings
            and config.training.preset in (None, "standardized")
        )
    )
    if not as_probe:
        return None
    return lambda train, labels, test, classes: fit_linear_probe(
        train,
        labels,
        classes,
        settings.epochs,
        settings.learning_rate,
        settings.momentum,
        settings.batch_size,
        measurement.seed,
    ).logits(test)


def _training(config: EvaluationConfig, protocol: str) -> "Training":
    from tfcq import build
    from tfcq.evaluation.protocols import Training

    settings = config.optimization(protocol)
    return Training(
        settings.epochs, settings.batch_size, lambda steps: build.optimizer(settings, steps)
    )


def _qat(
    config: EvaluationConfig, subject: "Subject", task: "Task", training: "Training"
) -> Iterator["Accuracy"]:
    from tfcq.evaluation import protocols
    from tfcq.nn.float_model import requantizable

    policy = subject.policy.with_quantizers(*QAT_QUANTIZERS[config.measurement.quantizer])
    policy = dataclasses.replace(
        policy, overrides=((protocols.CLASSIFIER, "fp"), *policy.overrides)
    )

    def start():
        if config.measurement.start == "linear":
            return protocols.linear_classifier(task)
        # The fine-tuning is that of its own protocol, whatever follows it.
        own = dataclasses.replace(config, training=type(config.training)())
        return protocols.finetuned_classifier(task, _training(own, "finetune"))

    return protocols.qat(task, training, start, lambda model: requantizable(model, policy))


def _stem(config: EvaluationConfig, protocol: str) -> str:
    """Returns the name of a protocol's files."""
    measurement = config.measurement
    parts = [protocol]
    if protocol == "qat":
        parts.append(measurement.quantizer)
    if protocol in ("finetune", "semi"):
        if measurement.label_share is not None:
            parts.append(f"{100 * measurement.label_share:g}")
        if measurement.from_scratch:
            parts.append("from_scratch")
    return "_".join(parts)


def _settings(config: EvaluationConfig, protocol: str) -> dict[str, Any]:
    """Returns the settings that decide a protocol's figures."""
    from tfcq.evaluation_settings import USED_BY

    measured = dataclasses.asdict(config.measurement)
    used = {name: measured[name] for name in USED_BY[protocol] if name in measured}
    used.pop("seed", None)
    if protocol in PRESETS:
        used |= dataclasses.asdict(config.optimization(protocol))
        preset = config.training.preset or next(iter(PRESETS[protocol]))
        used["preset"] = preset
    return used


def _write(
    config: EvaluationConfig,
    subject: "Subject",
    protocol: str,
    results: list["Accuracy"],
    about: dict[str, Any],
    augmentation: "Augmentation",
) -> pathlib.Path:
    """Adds the results to the protocol's file, draws it, prints a table; returns the file."""
    from tfcq.evaluation.records import add_record
    from tfcq.reporting.plots import plot_accuracy
    from tfcq.reporting.tables import percent, table

    file = subject.results / f"{_stem(config, protocol)}.json"
    entries = [
        {k: v for k, v in dataclasses.asdict(result).items() if v is not None} for result in results
    ]
    head = {"dataset": about["dataset"], "protocol": protocol, "results": entries}
    settings = {"settings": _settings(config, protocol)}
    if protocol in ("finetune", "semi", "qat") or config.measurement.features == "augmented":
        settings["settings"]["augmentation"] = dataclasses.asdict(augmentation)
    merged = add_record(file, {**head, **about, **settings})["results"]
    picture = file.with_suffix(".png")
    names = [entry["bits"] for entry in merged]
    top1 = {protocol: [entry["top1"] for entry in merged]}
    plot_accuracy(picture, names, top1, title=f"{subject.title}, {about['dataset']}")
    rows = [
        (title, *(percent(entry[name]) for entry in entries))
        for title, name in (("top-1 %", "top1"), ("top-5 %", "top5"))
    ]
    print(f"\n{about['dataset']}, {protocol}, {about['test_images']} test images")
    print(table(("bits", *(entry["bits"] for entry in entries)), rows))
    print(f"Results: {file}\nPicture: {picture}")
    return file


if __name__ == "__main__":
    command_line.run(flag_set(), main)
