"""What there is to run: `python -m tfcq COMMAND`, or `tfcq COMMAND` where it is installed."""

import importlib
import sys

from tfcq import __version__, command_line
from tfcq.errors import unknown_choice

COMMANDS = {
    "train": "pre-trains a backbone without labels",
    "evaluate": "scores a backbone or classifier at many bit-widths",
    "export": "converts to int8 LiteRT and checks it",
    "detect": "trains a detector on a backbone and scores it at many bit-widths",
    "features": "writes embeddings for other tools",
    "verify": "checks what a TFLite file computes, tensor by tensor",
    "report": "puts runs side by side on one page",
}


def main() -> None:
    """Runs the command that the first argument names, or lists them all; 2 where there is none."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        lines = (
            f"python -m tfcq.{known:<9} {text}; --help lists its flags"
            for known, text in COMMANDS.items()
        )
        command_line.end(0, "\n".join(lines))
    if name == "--version":
        command_line.end(0, f"tfcq {__version__}")
    if name not in COMMANDS:
        message = unknown_choice("command", name, COMMANDS)
        print(f"error: {message} python -m tfcq lists them.", file=sys.stderr)
        command_line.end(command_line.USER_ERROR)
    module = importlib.import_module(f"tfcq.{name}")
    sys.argv[1:] = arguments
    command_line.run(module.flag_set(), module.main)


if __name__ == "__main__":
    main()
