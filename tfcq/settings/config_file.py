"""config.json of a run: read as this version or an earlier one wrote it."""

import dataclasses
import importlib.metadata
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.parsing import check_form, check_seal, parse_json
from tfcq.settings.backbones import (
    settings_of,
)
from tfcq.settings.recipes import recipe_named
from tfcq.settings.training import Config, config_from_flat

# What stands in front of the groups in config.json: who wrote it, by which generator the run draws,
# which settings were asked for.
ABOUT = {"version": str, "generator": str, "asked": [str]}


def config_from_json(text: str) -> Config:
    """Returns the tree that `Config.to_json` wrote, or that an earlier version did.

    Args:
        text: the JSON.

    Raises:
        UserError: on text that is not JSON, an unknown setting or a value that cannot be used.
    """
    tree = parse_json(text, "The configuration")
    if not isinstance(tree, dict):
        raise UserError(f"The configuration is a {type(tree).__name__}; allowed: an object.")
    tree = check_seal(tree, "The configuration")
    check_form(tree, ABOUT, "The configuration")
    values: dict[str, Any] = {}
    for name, group in tree.items():
        if name in ABOUT:
            continue
        if name not in {field.name for field in dataclasses.fields(Config)}:
            groups = [field.name for field in dataclasses.fields(Config)]
            raise unknown_choice("group of settings", name, groups)
        if not isinstance(group, dict):
            raise UserError(f"Settings {name!r} are {group!r}; allowed: an object.")
        values |= group
    try:
        # Before anything reads them.
        config_from_flat(values)
        return config_from_flat(_with_former_ways(values, stem_recorded="version" in tree))
    except UserError as error:
        wrote, runs = tree.get("version"), importlib.metadata.version("tfcq")
        by = f" (tfcq {wrote} wrote it, this is {runs})" if wrote not in (None, runs) else ""
        raise UserError(f"{error}{by}") from None


def _with_former_ways(values: dict[str, Any], stem_recorded: bool) -> dict[str, Any]:
    """Returns settings of a run of before with what was done where there was no setting yet."""
    if "backbone" not in values:
        return values
    policy = values.get("policy") or recipe_named(values.get("recipe", "ssql")).policy
    start = {"kernel_initializer": "uniform_fan_in", "zero_init_residual": False}
    former: dict[str, Any] = {"rounding": "floor"} if policy == "contrastive_quant" else {}
    own = settings_of(values["backbone"])
    former |= {n: v for n, v in start.items() if n in own}
    if "stem" in own and values.get("stem") is None and not stem_recorded:
        values = {**values, "stem": "cifar"}
    return former | values
