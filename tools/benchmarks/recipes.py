"""A training step of every recipe beside one of `float`."""

import argparse
from typing import Any

from benchmarks import step

from tfcq.settings.recipes import RECIPES


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the sizes of a step."""
    step.add_sizes(parser)


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each recipe."""
    form = {name: allowed[0] for name, allowed in step.FORMS.items()}
    return step.compared([{"recipe": name, **form} for name in RECIPES], arguments)
