"""Exports a backbone to int8 and checks it: `python -m tfcq.export --run_dir=DIR`."""

import dataclasses
import json
from typing import Any

from tfcq import command_line
from tfcq.config import CALIBRATION_HELP, CALIBRATION_IMAGES, Config
from tfcq.errors import UserError
from tfcq.nn.policies import POLICIES, policy_named
from tfcq.run_folder import RunFolder

EVALUATED = "8w8a"
DEPLOYED_POLICY = "int8"


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Exports a trained backbone to int8 TFLite and compares it with what was evaluated."
    )
    flags.add("Export", "run_dir", str, None, "folder of the run")
    flags.add("Export", "min_agreement", float, 0.99, "exit with 1 below this top-1 agreement")
    text = "quantize by this policy; int8 is what integer runtimes compute"
    flags.add("Export", "policy", str, DEPLOYED_POLICY, text, tuple(POLICIES))
    flags.add("Export", "calibration_images", int, None, CALIBRATION_HELP)
    flags.add("Export", "test_images", int, None, "check on the first so many; default all")
    return flags


def main(command: command_line.Command) -> int:
    """Exports one run.

    Args:
        command: the parsed command line.

    Returns:
        The exit code: 1 when the agreement is too low.
    """
    values = command.values
    if values["run_dir"] is None:
        raise UserError("--run_dir is missing; give the folder of a run that tfcq.train made.")
    if not 0 <= values["min_agreement"] <= 1:
        raise UserError(f"--min_agreement={values['min_agreement']}; allowed: 0 to 1.")
    for name in ("calibration_images", "test_images"):
        if values[name] is not None and values[name] < 1:
            raise UserError(f"--{name}={values[name]} cannot be used; allowed: 1 and above.")
    policy_named(values["policy"])
    folder = RunFolder(values["run_dir"])
    config = folder.load()
    command_line.quiet_start_up(values["verbosity"])
    agreement = export(
        config, folder, values["calibration_images"], values["test_images"], values["policy"]
    )
    if agreement < values["min_agreement"]:
        print(
            f"Top-1 agreement {agreement:.4f} with the {EVALUATED} simulation is under "
            f"--min_agreement={values['min_agreement']}."
        )
        return command_line.FAILURE
    return 0


def export(
    config: Config,
    folder: RunFolder,
    calibration_images: int | None,
    test_images: int | None,
    policy: str = DEPLOYED_POLICY,
) -> float:
    """Converts, compares with simulation and float, prints the table and writes the files.

    Args:
        config: the run's settings.
        folder: the run.
        calibration_images: how many training images set the ranges; None for 1000, or all if fewer.
        test_images: how many test images are compared; None for all.
        policy: how the backbone is quantized, in the simulation and on the device; how far the
            device is from the backbone as it was trained is told too.

    Returns:
        Top-1 agreement of the int8 model with the 8w8a simulation, 0 to 1, under a linear
        classifier trained on the simulation's features.

    Raises:
        UserError: when the data cannot be had, have no labels (agreement needs a classifier) or
            fewer images than asked for, or the model cannot be converted.
    """
    import numpy as np

    from tfcq import build, evaluation_data
    from tfcq.deployment.check import compare, median_seconds
    from tfcq.deployment.runtime import LiteModel, runtime_version
    from tfcq.deployment.tflite import float_tflite, int8_tflite
    from tfcq.evaluation.calibration import calibrate
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.evaluation.linear import fit_linear_probe
    from tfcq.files import whole_file, write_text
    from tfcq.quantization.bitwidths import parse_bit_width

    backbone = build.trained_backbone(folder, policy)
    _, data = evaluation_data.labelled_images(config.data, backbone)
    calibration = evaluation_data.first_images(
        "calibration_images", data.train_images, calibration_images, usual=CALIBRATION_IMAGES
    )
    images = evaluation_data.first_images("test_images", data.test_images, test_images)
    calibrate(backbone, calibration)
    files = {"int8": int8_tflite(backbone, calibration), "float": float_tflite(backbone)}
    lite = {name: LiteModel(content) for name, content in files.items()}

    features, bits = FeatureExtractor(backbone), parse_bit_width(EVALUATED)
    train = features(data.train_images, bits)
    classifier = fit_linear_probe(train, data.train_labels, data.classes)
    computed = {"simulation": features(images, bits), "float": features(images)}
    as_trained = build.trained_backbone(folder)
    calibrate(as_trained, calibration)
    trained_features = FeatureExtractor(as_trained)(images, bits)
    deployed = lite["int8"](images)
    lite["float"](images[:1])
    pairs = {
        "int8_against_simulation": (deployed, computed["simulation"]),
        "int8_against_float": (deployed, computed["float"]),
        "int8_against_simulation_as_trained": (deployed, trained_features),
        "simulation_against_float": (computed["simulation"], computed["float"]),
    }
    comparisons = {name: compare(*pair, classifier.logits) for name, pair in pairs.items()}
    milliseconds = {
        name: 1000 * seconds
        for name, seconds in median_seconds({n: m.invoke for n, m in lite.items()}).items()
    }
    labels = data.test_labels[: len(images)]
    top1 = {
        name: float(np.mean(classifier.logits(found).argmax(axis=1) == labels))
        for name, found in {"int8": deployed, **computed}.items()
    }

    paths = {name: folder.export / f"{name}.tflite" for name in files}
    for name, content in files.items():
        with whole_file(paths[name]) as temporary:
            temporary.write_bytes(content)
    agreement = comparisons["int8_against_simulation"].agreement
    figures = {
        "dataset": config.data.dataset,
        "evaluated_bits": EVALUATED,
        "policy": policy,
        "agreement": agreement,
        **{name: dataclasses.asdict(found) for name, found in comparisons.items()},
        "top1": top1,
        "bytes": {name: len(content) for name, content in files.items()},
        "milliseconds_per_image": milliseconds,
        "calibration_images": len(calibration),
        "test_images": len(images),
        "versions": {**build.versions(), "ai_edge_litert": runtime_version()},
    }
    write_text(folder.export / "int8.json", json.dumps(figures, indent=2) + "\n")
    _print_tables(figures, {name: str(path) for name, path in paths.items()})
    print(f"Figures: {folder.export / 'int8.json'}")
    return agreement


def _print_tables(figures: dict[str, Any], paths: dict[str, str]) -> None:
    from tfcq.reporting.tables import percent, table

    print(f"{figures['dataset']}, {figures['test_images']} test images")
    rows = []
    names = ("simulation", "float", "simulation_as_trained")
    for name in (*(f"int8_against_{other}" for other in names), "simulation_against_float"):
        found = figures[name]
        title = name.replace("_", " ").replace("simulation", f"{EVALUATED} simulation")
        errors = f"{found['relative_l2']:.4f}", f"{found['largest_error']:.3f}"
        rows.append((title, percent(found["agreement"]), f"{found['cosine_mean']:.5f}", *errors))
    print(table(("features", "same top-1 %", "cosine", "relative error", "largest error"), rows))
    rows = []
    for name, path in paths.items():
        time = f"{figures['milliseconds_per_image'][name]:.3f}"
        rows.append((name, figures["bytes"][name], time, percent(figures["top1"][name]), path))
    print(table(("model", "bytes", "ms per image", "top-1 %", "file"), rows))


if __name__ == "__main__":
    command_line.run(flag_set(), main)
