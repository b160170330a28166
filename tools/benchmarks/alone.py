"""Calls a function in a process of its own, which nothing that was measured before has touched."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from provenance import ROOT

TOOLS = ROOT / "tools"


def alone(call: str, *arguments: Any, checkout: pathlib.Path = ROOT) -> Any:
    """Returns what a function returns in a process of its own.

    Args:
        call: the function, `MODULE:NAME` of this folder.
        *arguments: what JSON can hold.
        checkout: where tfcq is imported from.
    """
    path = os.pathsep.join([str(checkout), str(TOOLS)])
    command = [sys.executable, "-P", "-m", "benchmarks.alone", call, json.dumps(arguments)]
    return json.loads(last_line(command, PYTHONPATH=path))


def last_line(command: list[str], sent: str = "", **environment: str) -> str:
    """Returns what a command prints last.

    Args:
        command: the command.
        sent: its standard input.
        **environment: further variables of its environment.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(
        command, check=True, env=environment, input=sent, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Calls the function that the command line names and prints what it returns."""
    from tfcq import command_line

    command_line.quiet_start_up(0)
    module, name = sys.argv[1].split(":")
    found = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    print(json.dumps(found(*json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
