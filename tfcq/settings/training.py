"""The settings of a run in groups, what they must agree on, and their tree as JSON."""

import dataclasses
import importlib.metadata
import json
from typing import Any

from tfcq.errors import UserError
from tfcq.parsing import sealed
from tfcq.settings.backbones import (
    check_backbone_name,
    normalization,
    settings_of,
    standard_start,
    standard_stem,
)
from tfcq.settings.bitwidths import parse_bit_choices
from tfcq.settings.datasets import check_dataset_name, colour
from tfcq.settings.durations import parse_duration
from tfcq.settings.fields import check_fields, grouped, share_range
from tfcq.settings.frameworks import (
    framework_settings,
)
from tfcq.settings.generator import GENERATOR
from tfcq.settings.policies import (
    QUANTIZERS,
    Policy,
    parse_bits_by_layer,
)
from tfcq.settings.recipes import Recipe, recipe_named
from tfcq.settings.saving import parse_save_every
from tfcq.settings.training_groups import (
    DataSettings,
    ExecutionSettings,
    MethodSettings,
    NetworkSettings,
    OptimizationSettings,
    ViewSettings,
)

# Training images that set activation ranges, where none were asked for.
CALIBRATION_IMAGES = 1000
# Of the batch that learning rates are given for (Goyal et al., 2017).
_REFERENCE_BATCH_SIZE = 256
BITS = ("weight_bits", "activation_bits", "precision_set")


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a pre-training run."""

    data: DataSettings = DataSettings()
    views: ViewSettings = ViewSettings()
    network: NetworkSettings = NetworkSettings()
    method: MethodSettings = MethodSettings()
    optimization: OptimizationSettings = OptimizationSettings()
    execution: ExecutionSettings = ExecutionSettings()

    def __post_init__(self) -> None:
        for group in dataclasses.fields(self):
            check_fields(getattr(self, group.name))
        check_dataset_name(self.data.dataset)
        colour("background", self.data.background)
        check_backbone_name(self.network.backbone)
        self._record_start()
        self._check_method()
        self._check_optimization()
        share_range("crop_area", self.views.crop_area)
        parse_save_every(self.execution.save_every)
        normalization(self.network.input_mean, self.network.input_std)

    def _record_start(self) -> None:
        """Puts in how the network starts where that was left to its stem, as config.json has it."""
        network = self.network
        if network.stem is None and "stem" in settings_of(network.backbone):
            # Images decide, see `for_images`.
            return
        start = {
            name: value
            for name, value in standard_start(network.stem).items()
            if name in settings_of(network.backbone) and getattr(network, name) is None
        }
        object.__setattr__(self, "network", dataclasses.replace(network, **start))

    def _check_method(self) -> None:
        method = self.method
        recipe = recipe_named(method.recipe)
        bits = recipe.bits(*(getattr(method, name) for name in BITS))
        for name, text in bits.items():
            choices = () if text is None else parse_bit_choices(text)
            if method.bit_schedule == "fixed" and recipe.draws and len(choices) > 1:
                raise UserError(
                    f"--bit_schedule=fixed with {name} {text}; allowed: one number of bits, such "
                    f"as {choices[0]}."
                )
        weights, activations = (
            parse_bit_choices(bits["precision_set"] or bits[name] or "")
            for name in ("weight_bits", "activation_bits")
        )
        recipe.check_candidates(weights, activations)
        if self.network.layer_bits is not None:
            parse_bits_by_layer(self.network.layer_bits)
        settings = framework_settings(method.framework, method.framework_settings())
        self._check_queue(recipe, settings)
        self._check_learned_scales(recipe)
        if self.execution.batch_norm == "shuffled" and "target_momentum" not in settings:
            raise UserError(
                f"--batch_norm=shuffled with --framework={method.framework}, which has no momentum "
                "network; allowed: local or synchronized."
            )

    def _check_queue(self, recipe: Recipe, settings: dict[str, Any]) -> None:
        keys = self.optimization.batch_size * len({pair.target for pair in recipe.pairs})
        if settings.get("queue_size", keys) < keys:
            raise UserError(
                f"--queue_size={settings['queue_size']}, and a step makes {keys} keys; allowed: "
                f"{keys} and above, or a smaller --batch_size (now {self.optimization.batch_size})."
            )

    def _check_learned_scales(self, recipe: Recipe) -> None:
        trained = any(not pair.prediction.is_float for pair in recipe.pairs)
        for name in ("weight_quantizer", "activation_quantizer"):
            kind = getattr(self.network, name)
            if kind and QUANTIZERS[kind].scale and not trained:
                raise UserError(
                    f"--{name}={kind} with --recipe={self.method.recipe}, which trains no "
                    "quantized pass and so never its scales; allowed: minmax."
                )

    def _check_optimization(self) -> None:
        optimization = self.optimization
        optimization.length()
        parse_duration(optimization.warmup)
        check_milestones(optimization)

    def to_json(self, **about: Any) -> str:
        """Returns the tree as JSON text, behind a checksum, the version and its generator.

        Args:
            **about: what else stands in front of the groups.
        """
        version = importlib.metadata.version("tfcq")
        opened = {"version": version, "generator": GENERATOR, **about}
        return json.dumps(sealed({**opened, **dataclasses.asdict(self)}), indent=2) + "\n"


def scaled_learning_rate(rate: float, batch_size: int) -> float:
    """Returns the learning rate of a batch size by the linear scaling rule.

        rate * batch_size / 256

    Goyal et al., "Accurate, Large Minibatch SGD" (2017), Sec. 2.1.

    Args:
        rate: the learning rate of 256 images per step.
        batch_size: images per step, over all replicas.
    """
    return rate * batch_size / _REFERENCE_BATCH_SIZE


def check_milestones(settings: OptimizationSettings) -> None:
    """Refuses milestones without the schedule that has them, and the other way round.

    Args:
        settings: the settings.

    Raises:
        UserError: saying what goes together.
    """
    if bool(settings.milestone_durations()) != (settings.learning_rate_schedule == "step"):
        raise UserError(
            f"--learning_rate_schedule={settings.learning_rate_schedule} with --milestones="
            f"{settings.milestones}; allowed: milestones with the schedule 'step' alone, such as "
            "60epochs,80epochs."
        )


def policy(config: Config) -> Policy:
    """Returns which layers a run quantizes and how: the settings, then the recipe's.

    Args:
        config: the settings.
    """
    network, recipe = config.network, recipe_named(config.method.recipe)
    chosen = recipe.policy_for(network.policy).with_layer_bits(network.layer_bits)
    chosen = chosen.with_quantizers(network.weight_quantizer, network.activation_quantizer)
    return dataclasses.replace(chosen, rounding=network.rounding)


def total_steps(settings: OptimizationSettings, steps: int) -> int:
    """Returns how many steps a run has.

    Args:
        settings: the settings.
        steps: steps per epoch.

    Raises:
        UserError: when there is none.
    """
    return settings.length().steps(steps, settings.batch_size, at_least=1)


def for_images(config: Config, image_size: int) -> Config:
    """Returns settings whose network has the first layers that suit its images.

    Args:
        config: the settings.
        image_size: height and width of a view, in pixels.
    """
    network = config.network
    if network.stem is not None or "stem" not in settings_of(network.backbone):
        return config
    return dataclasses.replace(
        config, network=dataclasses.replace(network, stem=standard_stem(image_size))
    )


def config_from_flat(values: dict[str, Any]) -> Config:
    """Returns the tree from values by setting name.

    Args:
        values: value of each setting; those absent keep their default.

    Raises:
        UserError: on an unknown setting or a value that cannot be used.
    """
    return Config(**grouped(Config, values))
