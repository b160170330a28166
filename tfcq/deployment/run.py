"""Exports a subject to int8 and compares it with what was evaluated."""

import dataclasses
import json
import pathlib
from typing import Any

import keras
import numpy as np

from tfcq.command_line import stage
from tfcq.data.image_stream import Images
from tfcq.deployment.backends import MAKERS, Made, probed
from tfcq.deployment.compared import compared_outputs
from tfcq.deployment.formats import Export, write_format
from tfcq.deployment.profile import operation_seconds, share_in_float
from tfcq.deployment.public_formats import PublicWeights, in_public_names
from tfcq.deployment.tflite import float_tflite
from tfcq.deployment.verify import checked, gate_images, micro_differences
from tfcq.errors import UserError
from tfcq.evaluation.classifier import CLASSIFIER
from tfcq.evaluation.evaluation import Evaluation, open_evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols.classifier import check_classifier
from tfcq.evaluation.records import versions
from tfcq.evaluation.run import about_data, about_subject
from tfcq.files import read_text, whole_files
from tfcq.integer.emulation import kernels_of
from tfcq.integer.labels import check_labels, with_labels
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.micro import MicroModel
from tfcq.integer.runtime import runtime_version
from tfcq.integer.trial import check_runs
from tfcq.nn.quantizable import QuantizableModel
from tfcq.parsing import parse_json
from tfcq.settings.backbones import UNIT_RANGE
from tfcq.settings.bitwidths import FLOAT
from tfcq.settings.deployment import (
    FINE_TUNING,
    OWN,
    PUBLIC_FORMATS,
    TFMOT,
    CheckSettings,
    ExportSettings,
)
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.evaluation_groups import DEPLOYED_BITS
from tfcq.settings.protocol_groups import PostTrainingSettings
from tfcq.settings.run_folder import RunFolder


def export(
    config: EvaluationConfig, settings: ExportSettings, check: CheckSettings
) -> tuple[dict[str, Any], dict[str, list[pathlib.Path]]]:
    """Writes int8 and float LiteRT models of a subject, and the figures of their comparison.

    Args:
        config: the settings, at one bit-width.
        settings: what is written.
        check: what is compared.

    Returns:
        The figures, and the files by what they hold.

    Raises:
        UserError: when the subject or the data cannot be had, cannot be converted, or the folder
            holds an export of something else.
    """
    if settings.batch > check.images:
        raise UserError(
            f"--batch={settings.batch} with --images={check.images}; allowed: at most as many."
        )
    evaluation = open_evaluation(config)
    if config.scores_logits:
        check_classifier(evaluation)
    elif not settings.probe:
        evaluation.tell_unscored_outputs()
    about = {
        **about_subject(evaluation),
        "evaluated_bits": config.measurement.bits,
        "compared": _compared_by(config, settings),
        "post_training": _steps(config),
        **_ways(settings),
    }
    folder, name = _folder(config), file_name(config.measurement.bits, settings)
    figures_file = folder / f"{name}.json"
    _check_earlier(figures_file, about)
    public = _public(evaluation, settings)
    model = _network(evaluation, settings)
    labels = _labels(evaluation, model, settings.probe or config.scores_logits)
    made = MAKERS[settings.backend](evaluation, model, settings)
    content = with_labels(made.file, labels) if labels else made.file.to_bytes()
    check_runs(content, "the int8 file", kernels_of(made.file))
    contents = {"int8": content, "float": float_tflite(model)}
    stage(f"Comparing on {len(evaluation.data.test_images):,} test images")
    compared = compared_outputs(evaluation, model, made, contents, settings.probe)
    images = gate_images(evaluation.data, check.images)
    stage(f"Gate: emulation against LiteRT on {len(images):,} images")
    gate = checked(made.file, images, made.levels) | compared.pop("by_kernels")
    del gate["outputs"]
    reference = "simulation" if made.simulated is not None else "float"
    figures = {
        **about,
        **made.figures,
        "agreement": compared[f"int8_against_{reference}"]["agreement"],
        **compared,
        "gate": gate,
        "bytes": {name: len(content) for name, content in contents.items()},
        "microcontroller": _microcontroller(content, made.file, images),
        **_profile(made, check.profile),
        **about_data(evaluation),
        "versions": {**versions(), "ai_edge_litert": runtime_version()},
    }
    names = {"int8": name, "float": _float_name(settings)}
    with whole_files(folder) as new:
        paths = {kind: [new / f"{names[kind]}.tflite"] for kind in contents}
        for kind, content in contents.items():
            paths[kind][0].write_bytes(content)
        public = _with_probe(public, model) if settings.probe else public
        leaving = Export(new / name, new / names["float"], made.file, model, labels, public)
        for kind in settings.formats:
            paths[kind] = write_format(kind, leaving)
        paths["figures"] = [new / figures_file.name]
        paths["figures"][0].write_text(json.dumps(figures, indent=2) + "\n")
    return figures, {kind: [folder / one.name for one in made] for kind, made in paths.items()}


def file_name(bits: str, settings: ExportSettings) -> str:
    """Returns the name of the integer file of a bit-width, without suffix.

    Args:
        bits: the bit-width, such as `"4w8a"`.
        settings: what is written.
    """
    maker = settings.storage if settings.backend == OWN else settings.backend
    parts = [maker, "classifier" if settings.probe else "", "" if bits == DEPLOYED_BITS else bits]
    return "_".join(filter(None, parts))


def _float_name(settings: ExportSettings) -> str:
    return "float_classifier" if settings.probe else "float"


def _compared_by(config: EvaluationConfig, settings: ExportSettings) -> str:
    if settings.probe:
        return "logits of a linear probe"
    return "logits" if config.scores_logits else "features, under a linear probe"


def _ways(settings: ExportSettings) -> dict[str, Any]:
    """Returns who made the file, how it is stored and, of tfmot, how it was fine-tuned."""
    tuned = FINE_TUNING if settings.backend == TFMOT else ()
    return {name: getattr(settings, name) for name in ("backend", "storage", "batch", *tuned)}


def _network(evaluation: Evaluation, settings: ExportSettings) -> QuantizableModel:
    """Returns what is written: the subject, with a probe behind it where that is asked for."""
    model, data = evaluation.subject.model, evaluation.data
    if not settings.probe:
        return model
    stage(f"Fitting a linear probe to {len(data.train_images):,} training images")
    network, bits = model, FLOAT
    if settings.backend == OWN:
        # As protocol linear fits it: to the features that the file computes.
        (bits,) = evaluation.bit_widths
        network = evaluation.post_training(model).at(bits).model
    features = FeatureExtractor(network)(data.train_images, bits)
    return probed(
        model, fit_linear_probe(features, data.train_labels, data.classes, seed=evaluation.seed)
    )


def _public(evaluation: Evaluation, settings: ExportSettings) -> dict[str, PublicWeights]:
    """Returns the weights of the subject as it was trained, by the names of other libraries.

    Before all else: a network that has no such names is told at once.
    """
    network = evaluation.subject.network or evaluation.subject.model
    kinds = [kind for kind in settings.formats if kind in PUBLIC_FORMATS]
    return {kind: in_public_names(network, kind) for kind in kinds}


def _with_probe(public: dict[str, PublicWeights], model: keras.Model) -> dict[str, PublicWeights]:
    kernel, bias, *_ = map(np.asarray, model.get_layer(CLASSIFIER).get_weights())
    return {kind: weights.with_classifier(kernel, bias) for kind, weights in public.items()}


def _labels(evaluation: Evaluation, model: keras.Model, scores: bool) -> tuple[str, ...]:
    names = evaluation.split.class_names or ()
    if not scores or model.output_shape[-1:] != (len(names),):
        return ()
    check_labels(names)
    return names


def _profile(made: Made, asked: bool) -> dict[str, Any]:
    """Returns how long operations take, where that is asked for, and the share of those in float.

    Args:
        made: the file.
        asked: whether it is asked for.
    """
    if not (asked or made.floats):
        return {}
    timed = operation_seconds(made.file)
    cost = {"names": made.floats, "share_of_time": share_in_float(made.file, timed)}
    return {**({"profile": timed} if asked else {}), **({"in_float": cost} if made.floats else {})}


def _microcontroller(content: bytes, file: LiteFile, images: Images) -> dict[str, Any]:
    """Returns what a microcontroller needs, and in how many outputs the emulation differs from it.

    Or why they are not known.
    """
    try:
        model = MicroModel(content)
    except UserError as error:
        return {"unknown": str(error)}
    differing = micro_differences(file, model, images)
    arena = dataclasses.asdict(model.arena)
    return {"flash": len(content), "arena": arena, "differing": differing, "images": len(images)}


def _check_earlier(file: pathlib.Path, about: dict[str, Any]) -> None:
    """Refuses to replace an export of something else.

    Raises:
        UserError: showing the first difference.
    """
    if not file.exists():
        return
    try:
        # Before it was kept, all networks took pixels from 0 to 1.
        usual = {"input_range": UNIT_RANGE, **_ways(ExportSettings())}
        earlier = {**usual, **parse_json(read_text(file), str(file))}
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
