"""Runs an evaluation: opens subject and data, measures, and writes what is found at once."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import keras

from tfcq.command_line import stage
from tfcq.evaluation.accuracy import Accuracy, majority_share
from tfcq.evaluation.evaluation import Evaluation, open_evaluation, open_subject
from tfcq.evaluation.file_evaluation import (
    FileEvaluation,
    open_file_evaluation,
    runtime_versions,
)
from tfcq.evaluation.protocols import runner_of
from tfcq.evaluation.records import (
    add_record,
    data_fingerprint,
    read_records,
    versions,
    weights_fingerprint,
)
from tfcq.evaluation.scoring import Scoring
from tfcq.files import remove_unfinished
from tfcq.nn.cloning import copy_of
from tfcq.nn.loading import load
from tfcq.nn.summary import summary
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.evaluation_groups import CalibrationSettings
from tfcq.settings.protocol_groups import PostTrainingSettings
from tfcq.settings.protocols import STARTS, Protocol
from tfcq.settings.training import CALIBRATION_IMAGES
from tfcq.training.determinism import make_deterministic


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured under one protocol.

    Args:
        file: its results file.
        title: what was evaluated, in words.
        record: what the file's newest record says beside the results.
        results: the accuracy at each bit-width, or on the kernels, that were asked for now.
    """

    file: pathlib.Path
    title: str
    record: dict[str, Any]
    results: list[Accuracy]


def evaluate(config: EvaluationConfig) -> list[Measured]:
    """Calibrates, measures, and writes the JSON of each protocol.

    Args:
        config: the settings.

    Returns:
        What was measured, by protocol.

    Raises:
        UserError: when the subject or the data cannot be had or do not fit each other.
        TrainingStopped: when a protocol's training diverges.
    """
    if config.measurement.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(config.measurement.seed)
    evaluation: Evaluation | FileEvaluation
    evaluation = open_file_evaluation(config) if config.scores_file else open_evaluation(config)
    evaluation.check_sizes()
    evaluation.tell_unscored_outputs()
    for protocol in config.protocols:
        runner_of(protocol).check(evaluation)
    shared = _shared_record(evaluation)
    measured = {
        protocol.name: Measured(
            evaluation.results_file(protocol),
            evaluation.subject.title,
            {"protocol": protocol.name, **shared, **_own_record(evaluation, protocol)},
            [],
        )
        for protocol in config.protocols
    }
    for one in measured.values():
        remove_unfinished(one.file.parent)
        # A file that cannot be added to is told of before anything is trained.
        read_records(one.file)
    stage(f"Scoring at {', '.join(map(str, evaluation.columns))}")
    for name, result in measure(evaluation):
        _tell(name, result)
        # At once, so that nothing measured is lost when what follows fails.
        entry = {k: v for k, v in dataclasses.asdict(result).items() if v is not None}
        add_record(measured[name].file, {**measured[name].record, "results": [entry]})
        measured[name].results.append(result)
    return list(measured.values())


def describe(config: EvaluationConfig) -> str:
    """Returns a table of what is quantized in a subject, layer by layer.

    Args:
        config: the settings.

    Raises:
        UserError: when the subject cannot be had.
    """
    return summary(open_subject(config).model)


def measure(evaluation: Scoring) -> Iterator[tuple[str, Accuracy]]:
    """Yields protocol and accuracy at each bit-width or on each kernels, as soon as it is known.

    Protocols that share features take turns in every column; others follow one by one.

    Args:
        evaluation: what is measured.

    Raises:
        TrainingStopped: when a protocol's training diverges.
    """
    frozen = _frozen(evaluation) if isinstance(evaluation, Evaluation) else evaluation
    scorers = {
        protocol.name: scorer
        for protocol in evaluation.config.protocols
        if (scorer := runner_of(protocol).scorer(frozen)) is not None
    }
    if scorers:
        yield from frozen.scored(scorers)
    for protocol in evaluation.config.protocols:
        if protocol.name not in scorers:
            anew = "from_scratch" in protocol.uses and not protocol.trains_network
            for result in runner_of(protocol).run(frozen if anew else evaluation):
                yield protocol.name, result


def _frozen(evaluation: Evaluation) -> Evaluation:
    """Returns the evaluation of a backbone that is not trained: a random one if asked for."""
    if not evaluation.config.measurement.from_scratch:
        return evaluation
    keras.utils.set_random_seed(evaluation.seed)
    anew = copy_of(evaluation.backbone, weights=False)
    subject = dataclasses.replace(evaluation.subject, model=anew)
    return dataclasses.replace(evaluation, subject=subject)


def _tell(protocol: str, result: Accuracy) -> None:
    print(f"{protocol:>10} {result.column:>6}  top-1 {100 * result.top1:.1f}", flush=True)
    if result.weight_bits:
        layers = ", ".join(f"{name} {bits}" for name, bits in result.weight_bits.items())
        print(f"{'':>10} weight bits: {layers}", flush=True)


def about_subject(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what every record of a subject's figures opens with.

    Args:
        evaluation: what is measured.
    """
    config, subject = evaluation.config, evaluation.subject
    return {
        "dataset": subject.data.dataset,
        "subject": subject.name,
        "weights": subject.weights,
        "input_range": subject.input_range,
        "policy": subject.policy_name,
        "calibration": _calibration(evaluation),
        "seed": config.measurement.seed,
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    """Returns how ranges are found, with what was asked for where the rest does not tell."""
    asked = evaluation.config.calibration
    usual = {
        "method": "minmax",
        "pass": "as trained",
        "images": min(CALIBRATION_IMAGES, len(evaluation.data.train_images)),
        "seed": None,
    }
    found = {
        "method": asked.calibration or usual["method"],
        "pass": asked.calibration_pass or usual["pass"],
        "images": len(evaluation.calibration_images),
        "seed": asked.calibration_seed,
    }
    # Where no method was asked for a classifier chooses one, and where nothing was a network keeps
    # the ranges of its training.
    if asked.calibration == usual["method"]:
        return {**found, "asked": "method"}
    if found == usual and asked != CalibrationSettings():
        return {**found, "asked": "images"}
    return found


def about_data(evaluation: Scoring) -> dict[str, Any]:
    """Returns what every record says of the images.

    Args:
        evaluation: what is measured.
    """
    data = evaluation.data
    return {
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "classes": data.classes,
        "majority_share": majority_share(data.test_labels),
        "test_crop": data.test_crop,
        **_holdout(evaluation),
        "data_fingerprint": data_fingerprint(data),
    }


def _holdout(evaluation: Scoring) -> dict[str, Any]:
    """Returns which images were held out, where they were."""
    data = evaluation.subject.data
    if data.holdout is None:
        return {}
    return {"holdout": data.holdout, "holdout_seed": data.holdout_seed}


def _shared_record(evaluation: Evaluation | FileEvaluation) -> dict[str, Any]:
    if isinstance(evaluation, FileEvaluation):
        used = {**versions(), **runtime_versions()}
        return {**evaluation.about(), **about_data(evaluation), "versions": used}
    return {
        **about_subject(evaluation),
        "quantization": evaluation.subject.quantization(),
        **about_data(evaluation),
        "versions": versions(),
    }


def _own_record(evaluation: Scoring, protocol: Protocol) -> dict[str, Any]:
    found: dict[str, Any] = {"settings": _settings(evaluation, protocol)}
    start = evaluation.config.measurement.start
    if "start" in protocol.uses and start not in STARTS:
        found |= {"start_file": start, "start_weights": weights_fingerprint(load(start))}
    return found


def _settings(evaluation: Scoring, protocol: Protocol) -> dict[str, Any]:
    """Returns the settings that decide a protocol's figures."""
    config = evaluation.config
    measured = dataclasses.asdict(config.measurement)
    used = {name: measured[name] for name in protocol.uses if name in measured}
    for name in ("seed", "keep_classifiers"):
        used.pop(name, None)
    if used.get("start", STARTS[0]) not in STARTS:
        # Its weights tell which one; its path does not.
        used["start"] = "kept classifier"
    if used.get("curve_images", 0) is None:
        used.pop("curve_images")
    # What was not asked for is left out, so that records of before a flag came are the same.
    if measured["deterministic"]:
        used["deterministic"] = True
    usual = PostTrainingSettings()
    used |= {
        name: value
        for name, value in dataclasses.asdict(config.post_training).items()
        if name in protocol.uses and value != getattr(usual, name)
    }
    if protocol.presets:
        used |= dataclasses.asdict(protocol.training(config.training))
        # Crops stand in the augmentation, where there is one; the preset tells of the others.
        for name in ("crop_area", "trainer", "standardized"):
            used.pop(name)
        if "classifier_start" not in protocol.uses:
            used.pop("classifier_start")
        used["preset"] = protocol.preset(config.training.preset)
    augmented = "features" in protocol.uses and config.measurement.features == "augmented"
    if isinstance(evaluation, Evaluation) and (protocol.trains_network or augmented):
        used["augmentation"] = dataclasses.asdict(evaluation.augmentation(protocol))
    return used
