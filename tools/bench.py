#!/usr/bin/env python3
"""Measures speed: steps, recipes, a sweep, views, what limits a training, exported files.

    .venv/bin/python tools/bench.py step --product_dtype=float32,bfloat16 --output=results/bench

Each is a ratio of what takes turns, with the rate of the machine's convolutions beside it.
`--output` keeps the figures beside those of other commands and writes the page of all of them.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import export, page, pipeline, recipes, step, sweep, training
from benchmarks.alone import alone
from provenance import commit_here

from tfcq.errors import UserError

BENCHMARKS = {
    module.__name__.rpartition(".")[2]: module
    for module in (step, recipes, sweep, pipeline, training, export)
}
# What others have in another place.
PLACES = {"peer": "PYTHON", "baseline": "CHECKOUT"}


def main() -> None:
    """Measures what is asked for, prints a table and keeps it."""
    arguments, command = parsed(sys.argv[1:])
    output = arguments.output
    try:
        # What stands there is read before hours are spent.
        earlier = page.read_records(output.with_suffix(".json")) if output else []
        record = measured(arguments, command)
    except UserError as error:
        command.error(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error}")
    print(page.section(record))
    if output:
        page.write(output, page.added(earlier, record))


def parsed(words: Sequence[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Returns a command line and the parser of its command.

    Args:
        words: the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        about = module.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=about, description=about)
        module.add_flags(command)
        command.add_argument("--output", type=pathlib.Path, help="OUTPUT.json and OUTPUT.md")
    arguments = parser.parse_args(words)
    command = commands.choices[arguments.benchmark]
    for name, value in vars(arguments).items():
        if type(value) is int and value < 1:
            command.error(f"--{name}={value} cannot be used; allowed: 1 and above.")
    return arguments, command


def measured(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> dict[str, Any]:
    """Returns the figures that are asked for, with what they were measured on.

    Args:
        arguments: the command line.
        command: its parser.
    """
    module = BENCHMARKS[arguments.benchmark]
    return {
        "command": told(arguments, command),
        "about": module.__doc__.splitlines()[0].rstrip("."),
        "commit": commit_here(),
        "machine": alone("convolutions:machine"),
        "rate": alone("convolutions:rate"),
        "figures": module.figures(arguments),
    }


def told(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> str:
    """Returns the command line without defaults and without places of this machine.

    Args:
        arguments: the command line.
        command: its parser.
    """
    words = ["tools/bench.py", arguments.benchmark]
    for name, value in vars(arguments).items():
        if name not in ("benchmark", "output") and value != command.get_default(name):
            words.append(f"--{name}" if value is True else f"--{name}={PLACES.get(name, value)}")
    return shlex.join(words)


if __name__ == "__main__":
    main()
