"""What stands beside every figure that a tool writes."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def commit_here(tree: pathlib.Path | str = ROOT) -> str:
    """Returns the commit of this repository, with a `+` behind it where the code differs from it.

    Args:
        tree: a checkout of it.
    """
    changed = _git(tree, "status", "--porcelain", "--", "tfcq", "tools", "flags")
    return _git(tree, "rev-parse", "HEAD") + "+" * bool(changed)


def short(commit: str) -> str:
    """Returns a commit as pages show it.

    Args:
        commit: as `commit_here` returns it.
    """
    return commit[:7] + "+" * commit.endswith("+")


def _git(tree: pathlib.Path | str, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()
