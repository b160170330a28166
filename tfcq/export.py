"""Exports a backbone or classifier to int8 and checks it: `python -m tfcq.export --run_dir=DIR`."""

from tfcq import command_line
from tfcq.settings.deployment import CheckSettings, ExportSettings
from tfcq.settings.evaluation import (
    GROUPS,
    EvaluationConfig,
    check_deployed,
    evaluation_from_flat,
)
from tfcq.settings.evaluation_groups import (
    DEPLOYED_BITS,
    DEPLOYED_POLICY,
    SubjectSettings,
)
from tfcq.settings.protocols import CLASSIFIER, LINEAR
from tfcq.settings.subject_files import check_files, check_output
from tfcq.settings.unused import check_used_in_evaluation


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Exports a trained backbone or classifier to int8 TFLite and compares it with what was "
        "evaluated: python -m tfcq.export",
        examples=(
            "python -m tfcq.export --run_dir=RUN",
            "python -m tfcq.export --model=PATH.keras --classifier --dataset=NAME --output_dir=DIR",
        ),
    )
    flags.add_custom_objects()
    flags.add_settings("Subject", SubjectSettings(policy=DEPLOYED_POLICY))
    for title in ("Data", "Calibration", "Post-training"):
        flags.add_settings(title, GROUPS[title])
    text = f"bit-width of the weights, 2w8a to {DEPLOYED_BITS}; activations have 8 bits in LiteRT"
    flags.add("Check", "bits", str, DEPLOYED_BITS, text)
    flags.add_settings("Export", ExportSettings())
    flags.add_settings("Check", CheckSettings())
    flags.add("Check", "seed", int, 0, "seed of the linear probe and of learned rounding")
    return flags


def config_of(command: command_line.Command) -> EvaluationConfig:
    """Returns the settings of a command line.

    Args:
        command: the parsed command line.

    Raises:
        UserError: on a value that cannot be used, or a flag that would change nothing.
    """
    others = {*command_line.GENERAL, *vars(ExportSettings()), *vars(CheckSettings())}
    values = {name: value for name, value in command.values.items() if name not in others}
    scored_as = CLASSIFIER if command.values["classifier"] else LINEAR
    config = evaluation_from_flat(values | {"protocol": scored_as.name})
    # Its folder is a run's usual place here, not its only one.
    check_used_in_evaluation(config, command.given - {"output_dir", *vars(ExportSettings())})
    check_deployed(config)
    return config


def main(command: command_line.Command) -> int:
    """Exports one run or model.

    Args:
        command: the parsed command line.

    Returns:
        The exit code: 1 when the agreement is too low.
    """
    settings, check = command.settings(ExportSettings), command.settings(CheckSettings)
    config = config_of(command)
    settings.check(command.given, *config.bit_widths)
    check_files(config)
    check_output(config)
    command.start_up(doing="Reading network and images")
    from tfcq.deployment.run import export
    from tfcq.reporting.gate import export_failure, gate_tables, write_gate
    from tfcq.reporting.tables import export_tables

    figures, files = export(config, settings, check)
    print(f"{export_tables(figures, files)}\n{gate_tables(figures['gate'])}")
    (page,) = files["figures"]
    page = page.with_suffix("")
    for path in write_gate(page.with_name(f"{page.name}_gate"), figures["gate"], page.name):
        print(f"Figures: {path}")
    print(f"Figures: {page}.json")
    if failure := export_failure(figures, check.min_agreement):
        print(failure)
        return command_line.FAILURE
    if config.subject.run_dir is not None:
        command_line.tell_next("report", config.subject.run_dir, output="report")
    return 0


if __name__ == "__main__":
    command_line.run(flag_set(), main)
