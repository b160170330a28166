"""Exports a backbone or classifier to int8 and checks it: `python -m tfcq.export --run_dir=DIR`."""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq import command_line
from tfcq.errors import UserError
from tfcq.evaluation_flags import config_from_flags
from tfcq.evaluation_settings import (
    CalibrationSettings,
    EvaluationConfig,
    EvaluationDataSettings,
    PostTrainingSettings,
    SubjectSettings,
    defaults,
)
from tfcq.run_folder import RunFolder

if TYPE_CHECKING:
    from tfcq.subject import Subject

EVALUATED = "8w8a"
FIGURES = "int8.json"
DEPLOYED_POLICY = "int8"


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Exports a trained backbone or classifier to int8 TFLite and compares it with what was "
        "evaluated."
    )
    flags.add_settings("Subject", SubjectSettings(policy=DEPLOYED_POLICY))
    flags.add_settings("Data", EvaluationDataSettings())
    flags.add_settings("Calibration", CalibrationSettings())
    flags.add_settings("Post-training", PostTrainingSettings())
    flags.add("Check", "min_agreement", float, 0.99, "exit with 1 below this top-1 agreement")
    text = "the outputs are logits, compare them as they are; default under a linear probe"
    flags.add("Check", "classifier", bool, False, text)
    flags.add("Check", "seed", int, 0, "seed of the linear probe and of learned rounding")
    return flags


def main(command: command_line.Command) -> int:
    """Exports one run or model.

    Args:
        command: the parsed command line.

    Returns:
        The exit code: 1 when the agreement is too low.
    """
    values = dict(command.values)
    verbosity, lowest = values.pop("verbosity"), values.pop("min_agreement")
    classifier = values.pop("classifier")
    from tfcq.opened_subject import check_subject

    if not 0 <= lowest <= 1:
        raise UserError(f"--min_agreement={lowest} cannot be used; allowed: 0 to 1.")
    fixed = {"bits": EVALUATED, "protocol": "classifier" if classifier else "linear"}
    # Its folder is a run's usual place here, not its only one.
    given = command.given - {"output_dir"}
    config = config_from_flags({**defaults(), **values, **fixed}, given)
    if config.quantizer_rounding not in (None, "nearest"):
        raise UserError(
            f"--rounding={config.quantizer_rounding} cannot be exported; allowed: nearest, as "
            "LiteRT rounds, adaround or block."
        )
    check_subject(config)
    command_line.quiet_start_up(verbosity)
    agreement = export(config)
    if agreement < lowest:
        print(
            f"Top-1 agreement {agreement:.4f} with the {EVALUATED} simulation is under "
            f"--min_agreement={lowest}; the files were written. A classifier that is unsure "
            "decides near-ties otherwise: train it longer, or lower --min_agreement."
        )
        return command_line.FAILURE
    return 0


def export(config: EvaluationConfig) -> float:
    """Converts, compares with simulation and float, prints the tables and writes the files.

    Args:
        config: the settings. Under the protocol `classifier` outputs are compared as logits, else
            under a linear probe that is trained on the simulation's features.

    Returns:
        Top-1 agreement of the int8 model with the 8w8a simulation, 0 to 1.

    Raises:
        UserError: when the subject or the data cannot be had or do not fit each other, there are
            no labels, or the model cannot be converted.
    """
    import numpy as np

    from tfcq import build, evaluation_data
    from tfcq.deployment.check import compare, median_seconds
    from tfcq.deployment.runtime import LiteModel, runtime_version
    from tfcq.deployment.tflite import float_tflite, int8_tflite
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.evaluation.linear import fit_linear_probe
    from tfcq.evaluation.records import data_fingerprint
    from tfcq.files import whole_file, write_text
    from tfcq.measurement import post_training_plan
    from tfcq.opened_subject import open_subject
    from tfcq.post_training.plan import Plan, PostTraining, check_plan
    from tfcq.quantization.bitwidths import FLOAT, parse_bit_width

    chosen, bits = config.calibration, parse_bit_width(EVALUATED)
    subject = open_subject(config)
    _, data = evaluation_data.labelled_images(
        subject.data, subject.model, config.data.test_images, config.data.test_crop
    )
    calibration = evaluation_data.calibration_images(
        data.train_images, chosen.calibration_images, chosen.calibration_seed
    )
    classifier = config.protocols() == ("classifier",)
    if classifier:
        subject.check_classifier(data.classes)
        subject.check_logits()
    about = {
        **subject.record(config, len(calibration)),
        "evaluated_bits": EVALUATED,
        "compared": "logits" if classifier else "features, under a linear probe",
        "post_training": _steps(config),
    }
    folder = _folder(config)
    _check_earlier(folder / FIGURES, about)
    plan = post_training_plan(config)
    check_plan(subject.model, plan)
    post_training = PostTraining(subject.model, calibration, plan)
    quantized = post_training.at(bits)
    files = {"int8": int8_tflite(quantized, calibration), "float": float_tflite(subject.model)}
    lite = {name: LiteModel(content) for name, content in files.items()}

    images, features = data.test_images, FeatureExtractor(quantized)
    if classifier:

        def scores(outputs: np.ndarray) -> np.ndarray:
            return outputs
    else:
        train = features(data.train_images, bits)
        seed = config.measurement.seed
        scores = fit_linear_probe(train, data.train_labels, data.classes, seed=seed).logits
    outputs = {
        "int8": lite["int8"](images),
        "simulation": features(images, bits),
        "float": FeatureExtractor(subject.model)(images, FLOAT),
    }
    lite["float"](images[:1])
    pairs = [("int8", "simulation"), ("int8", "float"), ("simulation", "float")]
    own = _as_trained(config)
    if own is not None:
        trained = PostTraining(own.model, calibration, Plan()).at(bits)
        outputs["simulation_as_trained"] = FeatureExtractor(trained)(images, bits)
        pairs.insert(2, ("int8", "simulation_as_trained"))
    comparisons = {
        f"{a}_against_{b}": dataclasses.asdict(compare(outputs[a], outputs[b], scores))
        for a, b in pairs
    }
    milliseconds = {
        name: 1000 * seconds
        for name, seconds in median_seconds({n: m.invoke for n, m in lite.items()}).items()
    }
    top1 = {
        name: float(np.mean(scores(outputs[name]).argmax(axis=1) == data.test_labels))
        for name in ("int8", "simulation", "float")
    }

    paths = {name: folder / f"{name}.tflite" for name in files}
    for name, content in files.items():
        with whole_file(paths[name]) as temporary:
            temporary.write_bytes(content)
    agreement = comparisons["int8_against_simulation"]["agreement"]
    figures = {
        **about,
        "ranges": post_training.chosen(bits).get("ranges"),
        "agreement": agreement,
        **comparisons,
        "top1": top1,
        "bytes": {name: len(content) for name, content in files.items()},
        "milliseconds_per_image": milliseconds,
        "train_images": len(data.train_images),
        "test_images": len(images),
        "test_crop": data.test_crop,
        "data_fingerprint": data_fingerprint(data),
        "versions": {**build.versions(), "ai_edge_litert": runtime_version()},
    }
    write_text(folder / FIGURES, json.dumps(figures, indent=2) + "\n")
    _print_tables(figures, list(comparisons), {name: str(path) for name, path in paths.items()})
    if len(np.unique(scores(outputs["float"]).argmax(axis=1))) == 1:
        print("The float model finds the same class in every image: agreement says little.")
    print(f"Figures: {folder / FIGURES}")
    return agreement


def _as_trained(config: EvaluationConfig) -> "Subject | None":
    """Returns the subject with quantizers of its own; None where it has none."""
    from tfcq.opened_subject import open_subject

    own = dataclasses.replace(config.subject, policy=None, layer_bits=None, per_tensor=False)
    plain = PostTrainingSettings()
    subject = open_subject(dataclasses.replace(config, subject=own, post_training=plain))
    return subject if subject.has_own_policy else None


def _check_earlier(file: pathlib.Path, about: dict[str, Any]) -> None:
    """Refuses to replace an export of something else.

    Raises:
        UserError: showing the first difference.
    """
    if not file.exists():
        return
    try:
        earlier = json.loads(file.read_text())
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
    return RunFolder(subject_settings.run_dir).export


def _steps(config: EvaluationConfig) -> dict[str, Any]:
    """Returns the steps after training that were asked for."""
    usual = PostTrainingSettings()
    steps = dataclasses.asdict(config.post_training)
    return {name: value for name, value in steps.items() if value != getattr(usual, name)}


def _print_tables(figures: dict[str, Any], comparisons: list[str], paths: dict[str, str]) -> None:
    from tfcq.reporting.tables import percent, table

    print(f"{figures['dataset']}, {figures['test_images']} test images, policy {figures['policy']}")
    rows = []
    for name in comparisons:
        found = figures[name]
        title = name.replace("_", " ").replace("simulation", f"{EVALUATED} simulation")
        errors = f"{found['relative_l2']:.4f}", f"{found['largest_error']:.3f}"
        rows.append((title, percent(found["agreement"]), f"{found['cosine_mean']:.5f}", *errors))
    compared = figures["compared"].partition(",")[0]
    print(table((compared, "same top-1 %", "cosine", "relative error", "largest error"), rows))
    rows = []
    for name, path in paths.items():
        time = f"{figures['milliseconds_per_image'][name]:.3f}"
        rows.append((name, figures["bytes"][name], time, percent(figures["top1"][name]), path))
    print(table(("model", "bytes", "ms per image", "top-1 %", "file"), rows))


if __name__ == "__main__":
    command_line.run(flag_set(), main)
