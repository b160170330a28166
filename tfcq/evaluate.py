"""Scores a backbone or classifier at many bit-widths: `python -m tfcq.evaluate --run_dir=DIR`."""

from typing import TYPE_CHECKING

from tfcq import command_line
from tfcq.settings.evaluation import GROUPS, EvaluationConfig, evaluation_from_flat
from tfcq.settings.subject_files import check_files, check_output
from tfcq.settings.unused import check_used_in_evaluation

if TYPE_CHECKING:
    from tfcq.evaluation.run import Measured


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Scores a trained backbone at many bit-widths: python -m tfcq.evaluate",
        examples=(
            "python -m tfcq.evaluate --run_dir=RUN",
            "python -m tfcq.evaluate --run_dir=RUN --checkpoint=latest",
            "python -m tfcq.evaluate --model=PATH.keras --protocol=classifier "
            "--dataset=folder:PATH --output_dir=DIR",
            "python -m tfcq.evaluate --model=PATH.tflite --kernels=xnnpack,reference "
            "--dataset=folder:PATH --output_dir=DIR",
        ),
    )
    flags.add_custom_objects()
    text = "print what is quantized at which bits, layer by layer, and leave"
    flags.add("General", "describe", bool, False, text)
    for title, group in GROUPS.items():
        flags.add_settings(title, group)
    return flags


def config_of(command: command_line.Command) -> EvaluationConfig:
    """Returns the settings of a command line.

    Args:
        command: the parsed command line.

    Raises:
        UserError: on a value that cannot be used, or a flag that would change nothing.
    """
    names = {name for group in GROUPS.values() for name in vars(group)}
    config = evaluation_from_flat({k: v for k, v in command.values.items() if k in names})
    check_used_in_evaluation(config, command.given)
    return config


def main(command: command_line.Command) -> None:
    """Evaluates one run or model.

    Args:
        command: the parsed command line.
    """
    config = config_of(command)
    check_files(config)
    if not command.values["describe"]:
        check_output(config)
    command.start_up(config.measurement.deterministic, doing="Reading network and images")
    from tfcq.evaluation.run import describe, evaluate

    if command.values["describe"]:
        print(describe(config))
        return
    for measured in evaluate(config):
        show(measured)
    if config.subject.run_dir is not None and config.subject.checkpoint is None:
        command_line.tell_next(
            "export", run_dir=config.subject.run_dir, custom_objects=command.custom_objects
        )


def show(measured: "Measured") -> None:
    """Draws all that a protocol's file holds with these settings, and prints a table.

    Args:
        measured: what was measured.
    """
    from tfcq.evaluation.records import column_of, read_records
    from tfcq.reporting.measured import in_words
    from tfcq.reporting.plots import plot_accuracy

    record, results = measured.record, measured.results
    entries = read_records(measured.file)[0]["results"]
    picture = measured.file.with_suffix(".png")
    top1 = {record["protocol"]: [entry["top1"] for entry in entries]}
    heading = "kernels" if "kernels" in entries[0] else "bits"
    title = f"{measured.title}, {record['dataset']}, {record['protocol']}"
    columns = [column_of(entry) for entry in entries]
    plot_accuracy(picture, columns, top1, title=title, heading=heading)
    print(f"\n{in_words(record, results)}")
    print(f"Results: {measured.file}\nPicture: {picture}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
