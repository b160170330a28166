"""Exports a subject to int8 and compares it with what was evaluated."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfcq.command_line import stage
from tfcq.deployment.check import compare, median_seconds
from tfcq.deployment.gate import simulated_levels
from tfcq.deployment.tflite import calibrated_form, float_tflite
from tfcq.deployment.verify import checked, class_figures, gate_images
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.evaluation import Evaluation, open_evaluation, open_subject
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols.classifier import check_classifier
from tfcq.evaluation.records import versions
from tfcq.evaluation.run import about_data, about_subject
from tfcq.files import parse_json, read_text, whole_file, write_text
from tfcq.integer.kernels.rounding import KERNELS
from tfcq.integer.runtime import LiteModel, runtime_version
from tfcq.integer.writing import written
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.plan import Plan, PostTraining, Quantized
from tfcq.settings.backbones import UNIT_RANGE
from tfcq.settings.bitwidths import FLOAT
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.evaluation_groups import DEPLOYED_BITS
from tfcq.settings.protocol_groups import PostTrainingSettings
from tfcq.settings.run_folder import RunFolder

Scores = Callable[[np.ndarray], np.ndarray]


def export(
    config: EvaluationConfig, gate_count: int
) -> tuple[dict[str, Any], dict[str, pathlib.Path]]:
    """Writes int8 and float LiteRT models of a subject, and the figures of their comparison.

    Args:
        config: the settings, at one bit-width.
        gate_count: how many images the gate compares.

    Returns:
        The figures, and the files by their name.

    Raises:
        UserError: when the subject or the data cannot be had, cannot be converted, or the folder
            holds an export of something else.
    """
    evaluation = open_evaluation(config)
    subject, (bits,) = evaluation.subject, evaluation.bit_widths
    if config.scores_logits:
        check_classifier(evaluation)
    about = {
        **about_subject(evaluation),
        "evaluated_bits": config.measurement.bits,
        "compared": "logits" if config.scores_logits else "features, under a linear probe",
        "post_training": _steps(config),
    }
    folder, name = _folder(config), file_name(config.measurement.bits)
    figures_file = folder / f"{name}.json"
    _check_earlier(figures_file, about)
    stage(f"Converting to int8, ranges from {len(evaluation.calibration_images):,} images")
    quantized = evaluation.post_training(subject.model).at(bits)
    form = calibrated_form(quantized.model, evaluation.calibration_images)
    made = written(form, bits)
    files = {"int8": made.file.to_bytes(), "float": float_tflite(subject.model)}
    stage(f"Comparing on {len(evaluation.data.test_images):,} test images")
    compared = _compared(evaluation, form, files)
    images = gate_images(evaluation.data, gate_count)
    stage(f"Gate: emulation against LiteRT on {len(images):,} images")
    gate = checked(made.file, images, simulated_levels(form, made, bits))
    del gate["outputs"]
    gate |= compared.pop("by_kernels")
    figures = {
        **about,
        "ranges": quantized.ranges,
        "agreement": compared["int8_against_simulation"]["agreement"],
        **compared,
        "gate": gate,
        "bytes": {name: len(content) for name, content in files.items()},
        **about_data(evaluation),
        "versions": {**versions(), "ai_edge_litert": runtime_version()},
    }
    paths = {"int8": folder / f"{name}.tflite", "float": folder / "float.tflite"}
    for kind, content in files.items():
        with whole_file(paths[kind]) as temporary:
            temporary.write_bytes(content)
    write_text(figures_file, json.dumps(figures, indent=2) + "\n")
    return figures, {**paths, "figures": figures_file}


def file_name(bits: str) -> str:
    """Returns the name of the integer file of a bit-width, without suffix.

    Args:
        bits: the bit-width, such as `"4w8a"`.
    """
    return "int8" if bits == DEPLOYED_BITS else f"int8_{bits}"


def _compared(
    evaluation: Evaluation, form: QuantizableModel, files: dict[str, bytes]
) -> dict[str, Any]:
    """Returns how outputs agree, top-1 of each, by kernels too, and milliseconds per image."""
    data, (bits,) = evaluation.data, evaluation.bit_widths
    images, features = data.test_images, FeatureExtractor(form)
    scores = _scores(evaluation, features)
    lite = {name: LiteModel(content) for name, content in files.items()}
    outputs = {
        "int8": lite["int8"](images),
        "simulation": features(images, bits),
        "float": FeatureExtractor(evaluation.subject.model)(images, FLOAT),
    }
    lite["float"](images[:1])
    pairs = [("int8", "simulation"), ("int8", "float"), ("simulation", "float")]
    trained = _as_trained(evaluation)
    if trained is not None:
        outputs["simulation_as_trained"] = FeatureExtractor(trained.model)(images, bits)
        pairs.insert(2, ("int8", "simulation_as_trained"))
    seconds = median_seconds({name: model.invoke for name, model in lite.items()})
    classes = {name: scores(found).argmax(axis=1) for name, found in outputs.items()}
    if len(np.unique(classes["float"])) == 1:
        print("The float model finds the same class in every image: agreement says little.")
    return {
        **{
            f"{a}_against_{b}": dataclasses.asdict(compare(outputs[a], outputs[b], scores))
            for a, b in pairs
        },
        "top1": {
            name: float(np.mean(classes[name] == data.test_labels))
            for name in ("int8", "simulation", "float")
        },
        "by_kernels": class_figures(
            {
                kernels: scores(LiteModel(files["int8"], kernels=kernels)(images))
                for kernels in KERNELS
            },
            data.test_labels,
        ),
        "milliseconds_per_image": {name: 1000 * value for name, value in seconds.items()},
    }


def _scores(evaluation: Evaluation, features: FeatureExtractor) -> Scores:
    """Returns what gives scores from outputs: a linear probe, unless they are logits."""
    if evaluation.config.scores_logits:
        return lambda outputs: outputs
    data: LabelledImages = evaluation.data
    train = features(data.train_images, *evaluation.bit_widths)
    return fit_linear_probe(train, data.train_labels, data.classes, seed=evaluation.seed).logits


def _as_trained(evaluation: Evaluation) -> Quantized | None:
    """Returns the subject with quantizers of its own; None where it has none."""
    config = evaluation.config
    own = dataclasses.replace(config.subject, policy=None, layer_bits=None, per_tensor=False)
    subject = open_subject(
        dataclasses.replace(config, subject=own, post_training=PostTrainingSettings())
    )
    if not subject.has_own_policy:
        return None
    plain = PostTraining(subject.model, evaluation.calibration_images, Plan())
    return plain.at(*evaluation.bit_widths)


def _check_earlier(file: pathlib.Path, about: dict[str, Any]) -> None:
    """Refuses to replace an export of something else.

    Raises:
        UserError: showing the first difference.
    """
    if not file.exists():
        return
    try:
        # Before it was kept, all networks took pixels from 0 to 1.
        earlier = {"input_range": UNIT_RANGE, **parse_json(read_text(file), str(file))}
        changed = [name for name in about if earlier[name] != about[name]]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} cannot be read as an export's figures; move it away.") from None
    if changed:
        name = changed[0]
        raise UserError(
            f"{file.parent} holds another export ({name}: {earlier[name]!r} -> {about[name]!r}); "
            "move it away, or give another --output_dir."
        )


def _folder(config: EvaluationConfig) -> pathlib.Path:
    subject_settings = config.subject
    if subject_settings.output_dir is not None:
        return pathlib.Path(subject_settings.output_dir)
    return RunFolder(str(subject_settings.run_dir)).export


def _steps(config: EvaluationConfig) -> dict[str, Any]:
    """Returns the steps after training that were asked for."""
    usual = PostTrainingSettings()
    steps = dataclasses.asdict(config.post_training)
    return {name: value for name, value in steps.items() if value != getattr(usual, name)}
