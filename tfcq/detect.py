"""Trains and scores a detector at many bit-widths: `python -m tfcq.detect --run_dir=DIR`."""

from tfcq import command_line
from tfcq.settings.detection import GROUPS, DetectionConfig, detection_from_flat
from tfcq.settings.unused import check_used_in_detection


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Trains a detector on a pre-trained backbone, quantizes it and scores it at many "
        "bit-widths: python -m tfcq.detect",
        examples=(
            "python -m tfcq.detect --run_dir=RUN --dataset=scenes",
            "python -m tfcq.detect --run_dir=RUN --dataset=boxes:PATH --shorter_side=480,640",
            "python -m tfcq.detect --run_dir=RUN --preset=ssql_voc --data_dir=DIR",
        ),
    )
    for title, group in GROUPS.items():
        flags.add_settings(title, group)
    return flags


def config_of(command: command_line.Command) -> DetectionConfig:
    """Returns the settings of a command line.

    Args:
        command: the parsed command line.

    Raises:
        UserError: on a value that cannot be used, or a flag that would change nothing.
    """
    # Given ones alone: a preset comes before defaults.
    names = command.given & {name for group in GROUPS.values() for name in vars(group)}
    config = detection_from_flat({name: command.values[name] for name in names})
    check_used_in_detection(config, command.given)
    return config


def main(command: command_line.Command) -> int:
    """Trains and scores one detector.

    Args:
        command: the parsed command line.

    Returns:
        The exit code: 1 when an int8 file computes something else than its rules say.
    """
    config = config_of(command)
    from tfcq.detection.beforehand import checked_beforehand

    folder = checked_beforehand(config)
    command.start_up(config.training.deterministic, doing="Reading network and images")
    from tfcq.detection.run import detect
    from tfcq.reporting.detection import detection_table

    record, files = detect(config, folder)
    print(detection_table(record))
    for file in files:
        print(f"Results: {file}")
    passed = all(gate["passed"] for gate in record.get("int8", {}).values())
    return 0 if passed else command_line.FAILURE


if __name__ == "__main__":
    command_line.run(flag_set(), main)
