"""Scores a backbone or classifier at many bit-widths: `python -m tfcq.evaluate --run_dir=DIR`."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq import command_line
from tfcq.evaluation_flags import config_from_flags
from tfcq.evaluation_settings import GROUPS, EvaluationConfig
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

    from tfcq import build, evaluation_data, measurement
    from tfcq.evaluation.records import data_fingerprint, weights_fingerprint
    from tfcq.subject import open_subject

    seed, chosen = config.measurement.seed, config.calibration
    keras.utils.set_random_seed(seed)
    subject = open_subject(config)
    measurement.check_kept(config, subject)
    split, data = evaluation_data.labelled_images(
        subject.data, subject.model, config.data.test_images
    )
    calibration = evaluation_data.calibration_images(
        data.train_images, chosen.calibration_images, chosen.calibration_seed
    )
    task = measurement.task_of(config, subject, split, data, calibration)
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
        "seed": seed,
        "data_fingerprint": data_fingerprint(data),
        "versions": build.versions(),
    }
    files = []
    for protocol, results in measurement.measure(config, subject, task):
        files.append(_write(config, subject, protocol, results, about, task.augmentation))
    return files


def _settings(config: EvaluationConfig, protocol: str) -> dict[str, Any]:
    """Returns the settings that decide a protocol's figures."""
    from tfcq.evaluation_settings import USED_BY

    measured = dataclasses.asdict(config.measurement)
    used = {name: measured[name] for name in USED_BY[protocol] if name in measured}
    for name in ("seed", "keep_classifiers"):
        used.pop(name, None)
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
    from tfcq.measurement import stem_of
    from tfcq.reporting.plots import plot_accuracy
    from tfcq.reporting.tables import percent, table

    file = subject.results / f"{stem_of(config, protocol)}.json"
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
