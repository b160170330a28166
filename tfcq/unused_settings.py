"""Which settings would change nothing beside the others. Needs no TensorFlow."""

import dataclasses

from tfcq.backbones.names import BACKBONE_SETTINGS, settings_of
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.pretraining.recipes import recipe_named
from tfcq.quantization.bitwidths import parse_bit_choices
from tfcq.settings import ViewSettings

_QUANTIZED_ONLY = ("weight_bits", "activation_bits", "precision_set", "bit_schedule")


def check_used(config: Config, given: set[str]) -> None:
    """Refuses settings that were given but would change nothing.

    Args:
        config: the settings.
        given: names of the settings that the user set.

    Raises:
        UserError: naming the first of them and what makes it useless.
    """
    recipe = recipe_named(config.method.recipe)
    data = config.data
    tfds = data.dataset != "digits" and not data.dataset.startswith("folder:")
    unused = []
    if not recipe.draws:
        unused += [(n, f"recipe {config.method.recipe!r} draws no bits") for n in _QUANTIZED_ONLY]
    bits = recipe.bits(*(getattr(config.method, name) for name in _QUANTIZED_ONLY[:3]))
    single = all(text is None or len(parse_bit_choices(text)) == 1 for text in bits.values())
    if single and config.method.bit_schedule != "fixed":
        unused += [("bit_schedule", "there is one candidate for the bits, as with 'fixed'")]
    if set(recipe.views) == {0}:
        names = [field.name for field in dataclasses.fields(ViewSettings)]
        unused += [(n, f"recipe {config.method.recipe!r} augments no view") for n in names]
    network, optimization = config.network, config.optimization
    unused += [
        (name, f"backbone {network.backbone!r} does not use it")
        for name in sorted(BACKBONE_SETTINGS - settings_of(network.backbone))
    ]
    if config.method.projection_layers == 1:
        unused += [("projection_hidden", "a projector of one layer has no hidden one")]
    if config.execution.strategy == "single":
        unused += [("batch_norm", "--strategy=single has one replica")]
    if optimization.duration is not None:
        unused += [("epochs", "--duration says how long the run is")]
    if optimization.learning_rate_schedule != "step":
        unused += [("milestone_factor", "the learning rate has no milestones")]
    if optimization.optimizer == "adamw":
        unused += [("nesterov", "AdamW has none")]
    if optimization.momentum == 0:
        unused += [("nesterov", "--momentum is 0")]
    if optimization.weight_decay == 0 and optimization.optimizer != "lars":
        unused += [("exclude", "--weight_decay is 0")]
    if optimization.exclude == "none" and optimization.optimizer != "lars":
        unused += [("exclude", f"{optimization.optimizer} leaves no variable out by itself")]
    if config.views.jitter_probability == 0:
        unused += [
            (name, "--jitter_probability is 0")
            for name in ("brightness", "contrast", "saturation", "hue")
        ]
    if not tfds:
        unused += [
            (n, f"data set {data.dataset!r} is no TFDS name") for n in ("data_dir", "download")
        ]
    if not data.dataset.startswith("folder:"):
        unused += [("strict_data", f"data set {data.dataset!r} is no folder:PATH")]
    for name, reason in unused:
        if name in given:
            raise UserError(f"--{name} has no effect here: {reason}; leave it out.")
