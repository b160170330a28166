"""Scores a backbone or classifier at many bit-widths: `python -m tfcq.evaluate --run_dir=DIR`."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq import command_line
from tfcq.evaluation_flags import config_from_flags
from tfcq.evaluation_settings import GROUPS, STARTS, EvaluationConfig
from tfcq.protocol_presets import PRESETS
from tfcq.quantization.bitwidths import parse_bit_widths

if TYPE_CHECKING:
    from tfcq.data.augmentation import Augmentation
    from tfcq.evaluation.accuracy import Accuracy
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
    from tfcq.opened_subject import check_subject

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

    from tfcq import build, evaluation_data, measurement
    from tfcq.evaluation.records import (
        add_record,
        data_fingerprint,
        read_records,
        weights_fingerprint,
    )
    from tfcq.nn.quantizable import load
    from tfcq.opened_subject import open_subject

    seed, chosen = config.measurement.seed, config.calibration
    keras.utils.set_random_seed(seed)
    subject = open_subject(config)
    measurement.check_kept(config, subject)
    split, data = evaluation_data.labelled_images(
        subject.data, subject.model, config.data.test_images, config.data.test_crop
    )
    calibration = evaluation_data.calibration_images(
        data.train_images, chosen.calibration_images, chosen.calibration_seed
    )
    task = measurement.task_of(config, subject, split, data, calibration)
    about = {
        **subject.record(config, len(calibration)),
        "quantization": subject.quantization(),
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "test_crop": data.test_crop,
        "data_fingerprint": data_fingerprint(data),
        "versions": build.versions(),
    }
    heads = {
        protocol: {
            "protocol": protocol,
            **about,
            "settings": _settings(
                config, protocol, subject.augmentation(config, data.train_images, protocol)
            ),
        }
        for protocol in config.protocols()
    }
    start = config.measurement.start
    if "qat" in heads and start not in STARTS:
        weights = weights_fingerprint(load(start))
        heads["qat"] |= {"start_file": start, "start_weights": weights}
    files = {
        protocol: subject.results / f"{measurement.stem_of(config, protocol)}.json"
        for protocol in heads
    }
    for file in files.values():
        # A file that cannot be added to is told of before anything is trained.
        read_records(file)
    results: dict[str, list[Accuracy]] = {protocol: [] for protocol in heads}
    for protocol, result in measurement.measure(config, subject, task):
        # At once, so that nothing measured is lost when what follows fails.
        entry = {k: v for k, v in dataclasses.asdict(result).items() if v is not None}
        add_record(files[protocol], {**heads[protocol], "results": [entry]})
        results[protocol].append(result)
    for protocol, file in files.items():
        _show(subject, heads[protocol], file, results[protocol])
    return list(files.values())


def _settings(
    config: EvaluationConfig, protocol: str, augmentation: "Augmentation"
) -> dict[str, Any]:
    """Returns the settings that decide a protocol's figures."""
    from tfcq.evaluation_settings import USED_BY

    measured = dataclasses.asdict(config.measurement)
    used = {name: measured[name] for name in USED_BY[protocol] if name in measured}
    for name in ("seed", "keep_classifiers"):
        used.pop(name, None)
    if used.get("start", STARTS[0]) not in STARTS:
        # Its weights tell which one; its path does not.
        used["start"] = "kept classifier"
    if used.get("curve_images", 0) is None:
        used.pop("curve_images")
    # What was not asked for is left out, so that records of before a flag came are the same.
    usual = type(config.post_training)()
    used |= {
        name: value
        for name, value in dataclasses.asdict(config.post_training).items()
        if name in USED_BY[protocol] and value != getattr(usual, name)
    }
    if protocol in PRESETS:
        used |= dataclasses.asdict(config.optimization(protocol))
        # Crops stand in the augmentation, where there is one.
        used.pop("crop_area")
        if "classifier_start" not in USED_BY[protocol]:
            used.pop("classifier_start")
        preset = config.training.preset or next(iter(PRESETS[protocol]))
        used["preset"] = preset
    augmented = protocol == "linear" and config.measurement.features == "augmented"
    if protocol in ("finetune", "semi", "qat") or augmented:
        used["augmentation"] = dataclasses.asdict(augmentation)
    return used


def _show(
    subject: "Subject", head: dict[str, Any], file: pathlib.Path, results: list["Accuracy"]
) -> None:
    """Draws all that a protocol's file holds with these settings, and prints a table."""
    from tfcq.evaluation.records import read_records
    from tfcq.reporting.plots import plot_accuracy
    from tfcq.reporting.tables import percent, table

    entries = read_records(file)[0]["results"]
    picture = file.with_suffix(".png")
    top1 = {head["protocol"]: [entry["top1"] for entry in entries]}
    title = f"{subject.title}, {head['dataset']}, {head['protocol']}"
    plot_accuracy(picture, [entry["bits"] for entry in entries], top1, title=title)
    rows = [
        (name, *(percent(getattr(result, figure)) for result in results))
        for name, figure in (
            ("top-1 %", "top1"),
            ("top-5 %", "top5"),
            ("mean per class %", "mean_per_class"),
        )
    ]
    print(f"\n{head['dataset']}, {head['protocol']}, {head['test_images']} test images")
    print(table(("bits", *(result.bits for result in results)), rows))
    print(f"Results: {file}\nPicture: {picture}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
