"""What stands beside every figure that a tool writes."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def commit_here(tree: pathlib.Path | str = ROOT) -> str:
    """Returns the commit of this repository.

    Args:
        tree: a checkout of it.
    """
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()
