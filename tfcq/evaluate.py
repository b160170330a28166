"""Scores a backbone at many bit-widths: `python -m tfcq.evaluate --run_dir=DIR`."""

import dataclasses
import json
import pathlib

from tfcq import command_line
from tfcq.config import CALIBRATION_HELP, CALIBRATION_IMAGES, POLICY_HELP, Config
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import POLICIES, policy_named
from tfcq.quantization.bitwidths import BitWidth, parse_bit_widths
from tfcq.run_folder import RunFolder

PROTOCOLS = ("linear", "knn")
ALL_BITS = "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a"


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet("Scores a trained backbone at many bit-widths.")
    flags.add("Evaluation", "run_dir", str, None, "folder of the run")
    flags.add("Evaluation", "protocol", str, "linear", "how features are scored", PROTOCOLS)
    flags.add("Evaluation", "bits", str, ALL_BITS, "bit-widths, such as fp,8w8a,4w4a")
    flags.add("Evaluation", "policy", str, None, POLICY_HELP, tuple(POLICIES))
    flags.add("Evaluation", "calibration_images", int, None, CALIBRATION_HELP)
    flags.add("Evaluation", "seed", int, 0, "seed of the classifier's training order")
    return flags


def main(command: command_line.Command) -> None:
    """Evaluates one run.

    Args:
        command: the parsed command line.
    """
    values = command.values
    if values["run_dir"] is None:
        raise UserError("--run_dir is missing; give the folder of a run that tfcq.train made.")
    if values["protocol"] not in PROTOCOLS:
        raise unknown_choice("protocol", values["protocol"], PROTOCOLS)
    if values["calibration_images"] is not None and values["calibration_images"] < 1:
        raise UserError(
            f"--calibration_images={values['calibration_images']} cannot be used; allowed: 1 and "
            "above, such as 1000."
        )
    if not 0 <= values["seed"] < 2**32:
        raise UserError(f"--seed={values['seed']} cannot be used; allowed: 0 to {2**32 - 1}.")
    if values["protocol"] == "knn" and "seed" in command.given:
        raise UserError("--seed has no effect here: knn draws nothing; leave it out.")
    if values["policy"] is not None:
        policy_named(values["policy"])
    bit_widths = parse_bit_widths(values["bits"])
    folder = RunFolder(values["run_dir"])
    config = folder.load()
    command_line.quiet_start_up(values["verbosity"])
    evaluate(
        config,
        folder,
        values["protocol"],
        bit_widths,
        values["calibration_images"],
        values["seed"],
        values["policy"],
    )


def evaluate(
    config: Config,
    folder: RunFolder,
    protocol: str,
    bit_widths: tuple[BitWidth, ...],
    calibration_images: int | None,
    seed: int,
    policy: str | None = None,
) -> pathlib.Path:
    """Calibrates, sweeps, prints the table and writes JSON and picture.

    Args:
        config: the run's settings.
        folder: the run.
        protocol: `"linear"` or `"knn"`.
        bit_widths: the bit-widths.
        calibration_images: how many training images set the ranges; None for 1000, or all if fewer.
        seed: seed of the classifier's training order.
        policy: how the backbone is quantized instead of the way it was trained; the files then
            carry its name.

    Returns:
        The JSON file.

    Raises:
        UserError: when the data cannot be had, have no labels or fewer images than asked for.
    """
    from tfcq import build
    from tfcq.evaluation.calibration import calibrate
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.evaluation.sweep import sweep
    from tfcq.files import write_text
    from tfcq.reporting.plots import plot_accuracy
    from tfcq.reporting.tables import percent, table

    backbone = build.trained_backbone(folder, policy)
    data = build.labelled_images(config)
    calibration = build.first_images(
        "calibration_images", data.train_images, calibration_images, usual=CALIBRATION_IMAGES
    )
    calibrate(backbone, calibration)
    results = []
    for accuracy in sweep(FeatureExtractor(backbone), data, bit_widths, protocol, seed):
        results.append(accuracy)
        print(f"{accuracy.bits:>6}  top-1 {percent(accuracy.top1)}", flush=True)
    text = {
        "dataset": config.data.dataset,
        "protocol": protocol,
        "policy": policy or "as trained",
        "results": [dataclasses.asdict(result) for result in results],
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "calibration_images": len(calibration),
        "seed": seed,
        "versions": build.versions(),
    }
    file = folder.evaluation / (f"{protocol}_{policy}.json" if policy else f"{protocol}.json")
    write_text(file, json.dumps(text, indent=2) + "\n")
    picture = file.with_suffix(".png")
    names = [result.bits for result in results]
    title = f"{config.method.framework}, recipe {config.method.recipe}, {config.data.dataset}"
    plot_accuracy(picture, names, {protocol: [result.top1 for result in results]}, title=title)
    rows = [
        ("top-1 %", *(percent(result.top1) for result in results)),
        ("top-5 %", *(percent(result.top5) for result in results)),
    ]
    print(f"\n{config.data.dataset}, {protocol}, {len(data.test_images)} test images")
    print(table(("bits", *names), rows))
    print(f"Results: {file}\nPicture: {picture}")
    return file


if __name__ == "__main__":
    command_line.run(flag_set(), main)
