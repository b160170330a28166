"""Checks what a TFLite file computes: `python -m tfcq.verify FILE.tflite --dataset=NAME`."""

import pathlib

from tfcq import command_line
from tfcq.errors import UserError
from tfcq.files import check_writable
from tfcq.settings.backbones import INPUT_RANGES
from tfcq.settings.deployment import GateSettings
from tfcq.settings.evaluation_groups import EvaluationDataSettings


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Checks a TFLite file: an emulation of its integers against LiteRT, tensor by tensor, on "
        "every set of kernels: python -m tfcq.verify",
        arguments="the file",
        examples=("python -m tfcq.verify FILE.tflite --dataset=folder:PATH",),
    )
    flags.add_settings("Data", EvaluationDataSettings())
    text = "the pixels that the file takes; default what its input's scale tells, else 0-1"
    flags.add("Data", "input_range", str, None, text, tuple(INPUT_RANGES))
    flags.add_settings("Check", GateSettings())
    text = "where figures are written; default beside the file"
    flags.add("Check", "output_dir", str, None, text)
    return flags


def main(command: command_line.Command) -> int:
    """Checks one file.

    Args:
        command: the parsed command line.

    Returns:
        The exit code: 1 when emulation and runtime differ.
    """
    if len(command.arguments) != 1:
        raise UserError(
            f"{len(command.arguments)} files were named; allowed: one, python -m tfcq.verify FILE."
        )
    file = pathlib.Path(command.arguments[0])
    if not file.is_file():
        raise UserError(f"{file} does not exist; allowed: a .tflite file.")
    data = command.settings(EvaluationDataSettings)
    check = command.settings(GateSettings)
    if data.dataset is None:
        raise UserError(f"--dataset is missing; {file} needs images, such as --dataset=digits.")
    folder = command.values["output_dir"]
    check_writable(folder or file.parent, "output_dir" if folder else "")
    command_line.quiet_start_up(command.values["verbosity"], doing="Reading file and images")
    from tfcq.deployment.verify import verify
    from tfcq.reporting.gate import gate_tables, write_gate

    place = pathlib.Path(folder or file.parent) / f"{file.stem}_verified"
    figures = verify(file, data, check.images, command.values["input_range"])
    print(gate_tables(figures))
    for path in write_gate(place, figures, title=file.name):
        print(f"Figures: {path}")
    return 0 if figures["passed"] else command_line.FAILURE


if __name__ == "__main__":
    command_line.run(flag_set(), main)
