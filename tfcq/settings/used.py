"""What a run uses where its settings leave something open, in one spelling.

Two runs that use the same are the same, however their command lines were written. What depends on
images or network stays open here, see `tfcq.pretraining.settled`.
"""

import dataclasses
import os
from typing import Any

from tfcq.settings.backbones import FILE, normalization, settings_of, standard_width
from tfcq.settings.bitwidths import parse_bit_choices
from tfcq.settings.datasets import FOLDER_PREFIX
from tfcq.settings.durations import parse_duration
from tfcq.settings.fields import flat, share_range
from tfcq.settings.frameworks import framework_settings
from tfcq.settings.policies import Policy, parse_bits_by_layer
from tfcq.settings.recipes import RECIPES, Recipe, recipe_named
from tfcq.settings.training import BITS, Config, config_from_flat, policy, scaled_learning_rate
from tfcq.settings.training_groups import OptimizationSettings, ViewSettings

_START = {"stem", "kernel_initializer", "zero_init_residual"}
_LEFT_OPEN = {
    "image_size", "train_images", "patch_size", *_START, *BITS, *vars(ViewSettings()),
    "policy", "weight_quantizer", "activation_quantizer",
}  # fmt: skip


def used_alike(one: Config, other: Config) -> tuple[Config, Config]:
    """Returns what two runs use, where what one of them leaves open is left open in both.

    Args:
        one: the settings of a run.
        other: those of another.
    """
    first, second = flat(used(one)), flat(used(other))
    opened = {name for name in _LEFT_OPEN if None in (first[name], second[name])}
    if first["duration"] or second["duration"]:
        # How many epochs steps and images are depends on the number of images.
        opened |= {"duration", "epochs"}
    common = {name: first[name] for name in opened}
    return config_from_flat(first), config_from_flat({**second, **common})


def used(config: Config) -> Config:
    """Returns settings with every default put in that other settings decide.

    Args:
        config: the settings.
    """
    method, recipe = config.method, recipe_named(config.method.recipe)
    values: dict[str, Any] = {
        **flat(config),
        **_network(config),
        **_optimization(config.optimization),
        **framework_settings(method.framework, method.framework_settings()),
        "recipe": _recipe_text(recipe),
        "dataset": _dataset_text(config.data.dataset),
        "crop_area": numbers_text(share_range("crop_area", config.views.crop_area), "-"),
    }
    for name, text in recipe.bits(*(getattr(method, name) for name in BITS)).items():
        values[name] = _bits_text(text) if recipe.draws and text is not None else None
    return config_from_flat(values)


def numbers_text(numbers: tuple[float, ...] | None, separator: str) -> str | None:
    """Returns numbers as the settings have them; None for none.

    Args:
        numbers: the numbers.
        separator: what stands between them.
    """
    return None if numbers is None else separator.join(map(repr, numbers))


def _network(config: Config) -> dict[str, Any]:
    network = config.network
    own = settings_of(network.backbone)
    normalized = normalization(network.input_mean, network.input_std) or (None, None)
    values: dict[str, Any] = {
        "input_mean": numbers_text(normalized[0], ","),
        "input_std": numbers_text(normalized[1], ","),
    }
    standard = {"shortcut": "identity", "width": standard_width(network.backbone)}
    values |= {n: getattr(network, n) or standard[n] for n in own & standard.keys()}
    if network.layer_bits is not None:
        pairs = parse_bits_by_layer(network.layer_bits)
        values["layer_bits"] = ",".join(f"{pattern}:{bits}" for pattern, bits in pairs)
    # A file may hold a network with quantizers of its own.
    if not network.backbone.startswith(f"{FILE}:"):
        values |= policy_values(policy(config))
    return values


def policy_values(chosen: Policy) -> dict[str, Any]:
    """Returns the settings that name a policy, by their names.

    Args:
        chosen: the policy.
    """
    return {
        "policy": chosen.name,
        "weight_quantizer": chosen.weight_quantizer,
        "activation_quantizer": chosen.activation_quantizer,
    }


def _optimization(settings: OptimizationSettings) -> dict[str, Any]:
    length = settings.length()
    whole = length.unit == "epochs" and length.amount == int(length.amount)
    values: dict[str, Any] = {
        "epochs": int(length.amount) if whole else settings.epochs,
        "duration": None if whole else str(length),
        "warmup": str(parse_duration(settings.warmup)),
    }
    if settings.milestones is not None:
        values["milestones"] = ",".join(map(str, settings.milestone_durations()))
    if settings.scale_learning_rate:
        values["learning_rate"] = scaled_learning_rate(settings.learning_rate, settings.batch_size)
        values["scale_learning_rate"] = False
    return values


def _recipe_text(recipe: Recipe) -> str:
    """Returns the name of a recipe, also of one that was written out, or else its text."""
    for name, known in RECIPES.items():
        if dataclasses.replace(known, name=recipe.name) == recipe:
            return name
    return recipe.text


def _dataset_text(dataset: str) -> str:
    if not dataset.startswith(FOLDER_PREFIX):
        return dataset
    return FOLDER_PREFIX + os.path.normpath(dataset.removeprefix(FOLDER_PREFIX))


def _bits_text(text: str) -> str:
    choices = parse_bit_choices(text)
    low, high = choices[0], choices[-1]
    if len(choices) > 1 and choices == tuple(range(low, high + 1)):
        return f"{low}-{high}"
    return ",".join(map(str, choices))
