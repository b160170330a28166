"""Writes embeddings of all images for other tools: `python -m tfcq.features --run_dir=DIR`."""

from tfcq import command_line
from tfcq.settings.evaluation import GROUPS, EvaluationConfig, evaluation_from_flat
from tfcq.settings.kernels import KERNELS_HELP
from tfcq.settings.protocols import LINEAR
from tfcq.settings.subject_files import check_files, check_output
from tfcq.settings.unused import check_used_in_evaluation


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Writes what a trained backbone makes of every image, as .npz and CSV: "
        "python -m tfcq.features",
        examples=(
            "python -m tfcq.features --run_dir=RUN --bits=fp,4w4a",
            "python -m tfcq.features --run_dir=RUN --dataset=folder:PATH --output_dir=DIR",
            "python -m tfcq.features --model=PATH.tflite --dataset=folder:PATH --output_dir=DIR",
        ),
    )
    flags.add_custom_objects()
    for title in ("Subject", "Data", "Calibration", "Post-training"):
        flags.add_settings(title, GROUPS[title])
    flags.add("Features", "bits", str, "fp,4w4a", "bit-widths, such as fp,8w8a,2-4w4a")
    flags.add("Features", "kernels", str, None, KERNELS_HELP)
    flags.add("Features", "seed", int, 0, "seed of learned rounding")
    return flags


def config_of(command: command_line.Command) -> EvaluationConfig:
    """Returns the settings of a command line.

    Args:
        command: the parsed command line.

    Raises:
        UserError: on a value that cannot be used, or a flag that would change nothing.
    """
    values = {k: v for k, v in command.values.items() if k not in command_line.GENERAL}
    config = evaluation_from_flat(values | {"protocol": LINEAR.name})
    # A folder of its own is a choice for features of a run, too.
    check_used_in_evaluation(config, command.given - {"output_dir"})
    return config


def main(command: command_line.Command) -> None:
    """Writes the embeddings of one run or model.

    Args:
        command: the parsed command line.
    """
    config = config_of(command)
    check_files(config)
    check_output(config)
    command.start_up(doing="Reading network and images")
    from tfcq.evaluation.embeddings import write_embeddings

    for file in write_embeddings(config):
        print(f"Features: {file}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
