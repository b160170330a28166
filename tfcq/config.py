"""The settings of a run: one tree of frozen dataclasses, seen as flags and as JSON.

Needs no TensorFlow, so that a mistake is told before its start-up.
"""

import dataclasses
import json
import math
import types
import typing
from typing import Any

from tfcq.backbones.names import check_backbone_name, normalization, settings_of, standard_start
from tfcq.data.names import check_dataset_name
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import parse_bits_by_layer
from tfcq.pretraining.framework_settings import (
    framework_settings,
)
from tfcq.pretraining.recipes import Recipe, recipe_named
from tfcq.quantization.bitwidths import parse_bit_choices
from tfcq.settings import (
    DataSettings,
    ExecutionSettings,
    MethodSettings,
    NetworkSettings,
    OptimizationSettings,
    ViewSettings,
)
from tfcq.training.durations import parse_duration

_BITS = ("weight_bits", "activation_bits", "precision_set")
_LEARNED = ("lsq", "pact")
_SHARES = ("flip", "jitter_probability", "grayscale", "blur")
_WITHIN = {name: (0, 1) for name in _SHARES} | {"hue": (0, 0.5), "seed": (0, 2**32 - 1)}
CALIBRATION_IMAGES = 1000
CALIBRATION_HELP = f"training images that set the ranges; default {CALIBRATION_IMAGES:,} or all"

# Height and width in pixels.
SMALLEST_IMAGE = 4


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
            settings = getattr(self, group.name)
            kinds = typing.get_type_hints(type(settings))
            for field in dataclasses.fields(settings):
                value, choices = getattr(settings, field.name), field.metadata["choices"]
                _check_type(field.name, value, kinds[field.name])
                if choices and value is not None and value not in choices:
                    raise unknown_choice(field.name, value, choices)
        check_dataset_name(self.data.dataset)
        check_backbone_name(self.network.backbone)
        self._record_start()
        self._check_method()
        self._check_optimization()
        crop_area(self.views.crop_area)
        normalization(self.network.input_mean, self.network.input_std)
        self._check_numbers()

    def _record_start(self) -> None:
        """Puts in how the network starts where that was left to its stem, as config.json has it."""
        network = self.network
        start = {
            name: value
            for name, value in standard_start(network.stem).items()
            if name in settings_of(network.backbone) and getattr(network, name) is None
        }
        object.__setattr__(self, "network", dataclasses.replace(network, **start))

    def _check_method(self) -> None:
        method = self.method
        recipe = recipe_named(method.recipe)
        bits = recipe.bits(*(getattr(method, name) for name in _BITS))
        for name, text in bits.items():
            choices = () if text is None else parse_bit_choices(text)
            if method.bit_schedule == "fixed" and recipe.draws and len(choices) > 1:
                raise UserError(
                    f"--bit_schedule=fixed with {name} {text}; allowed: one number of bits, such "
                    f"as {choices[0]}."
                )
        weights = bits["precision_set"] or bits["weight_bits"]
        activations = bits["precision_set"] or bits["activation_bits"]
        recipe.check_candidates(parse_bit_choices(weights), parse_bit_choices(activations))
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
                f"{keys} and above."
            )

    def _check_learned_scales(self, recipe: Recipe) -> None:
        trained = any(not pair.prediction.is_float for pair in recipe.pairs)
        for name in ("weight_quantizer", "activation_quantizer"):
            kind = getattr(self.network, name)
            if kind in _LEARNED and not trained:
                raise UserError(
                    f"--{name}={kind} with --recipe={self.method.recipe}, which trains no "
                    "quantized pass and so never its scales; allowed: minmax."
                )

    def _check_optimization(self) -> None:
        optimization = self.optimization
        optimization.length()
        parse_duration(optimization.warmup)
        milestones = optimization.milestone_durations()
        if bool(milestones) != (optimization.learning_rate_schedule == "step"):
            raise UserError(
                f"--learning_rate_schedule={optimization.learning_rate_schedule} with --milestones="
                f"{optimization.milestones}; allowed: milestones with the schedule 'step' alone, "
                "such as 60epochs,80epochs."
            )

    def _check_numbers(self) -> None:
        size = self.data.image_size
        if size is not None and size < SMALLEST_IMAGE:
            raise UserError(
                f"--image_size={size} leaves nothing to crop; allowed: {SMALLEST_IMAGE} and above."
            )
        at_least_one = [
            ("train_images", self.data.train_images),
            ("width", self.network.width),
            ("patch_size", self.network.patch_size),
            ("epochs", self.optimization.epochs),
        ]
        for name, value in at_least_one:
            if value is not None and value < 1:
                raise UserError(
                    f"--{name}={value} cannot be used; allowed: 1 and above, such as 1."
                )
        if self.optimization.batch_size < 2:
            raise UserError(
                f"--batch_size={self.optimization.batch_size} cannot be used; allowed: 2 and "
                "above, since batch norm and collapse are judged over a batch."
            )
        for name, (low, high) in _WITHIN.items():
            value = flat(self)[name]
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name}={value}; allowed: {low} to {high}.")
        optimization = self.optimization
        if optimization.learning_rate <= 0:
            raise UserError(f"--learning_rate={optimization.learning_rate}; allowed: above zero.")
        if not 0 <= optimization.momentum < 1:
            raise UserError(f"--momentum={optimization.momentum}; allowed: 0 to below 1.")
        if optimization.weight_decay < 0:
            raise UserError(f"--weight_decay={optimization.weight_decay}; allowed: 0 and above.")
        if not 0 < optimization.milestone_factor < 1:
            raise UserError(
                f"--milestone_factor={optimization.milestone_factor}; allowed: above 0 and below 1."
            )

    def to_json(self) -> str:
        """Returns the tree as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def config_from_flat(values: dict[str, Any]) -> Config:
    """Returns the tree from values by setting name.

    Args:
        values: value of each setting; those absent keep their default.

    Raises:
        UserError: on an unknown setting or a value that cannot be used.
    """
    remaining = dict(values)
    groups = {}
    for group in dataclasses.fields(Config):
        kind = group.default.__class__
        names = {field.name for field in dataclasses.fields(kind)}
        groups[group.name] = kind(**{n: remaining.pop(n) for n in names & set(remaining)})
    if remaining:
        raise unknown_choice("setting", next(iter(remaining)), flat(Config()))
    return Config(**groups)


def config_from_json(text: str) -> Config:
    """Returns the tree that `Config.to_json` wrote.

    Args:
        text: the JSON.

    Raises:
        UserError: on text that is not JSON, an unknown setting or a value that cannot be used.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise UserError(f"The configuration is not JSON: {error}.") from None
    if not isinstance(tree, dict):
        raise UserError(f"The configuration is a {type(tree).__name__}; allowed: an object.")
    values = {}
    for name, group in tree.items():
        if name not in {field.name for field in dataclasses.fields(Config)}:
            groups = [field.name for field in dataclasses.fields(Config)]
            raise unknown_choice("group of settings", name, groups)
        if not isinstance(group, dict):
            raise UserError(f"Settings {name!r} are {group!r}; allowed: an object.")
        values |= group
    return config_from_flat(_with_former_ways(values))


def _with_former_ways(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings of a run of before with what was done where there was no setting yet."""
    if "backbone" not in values:
        return values
    policy = values.get("policy") or recipe_named(values.get("recipe", "ssql")).policy
    start = {"kernel_initializer": "uniform_fan_in", "zero_init_residual": False}
    former = {"rounding": "floor"} if policy == "contrastive_quant" else {}
    former |= {n: v for n, v in start.items() if n in settings_of(values["backbone"])}
    return former | values


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Refuses a value of another type, and numbers that are not finite."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    fits = (type(value) in kinds) or (float in kinds and type(value) is int)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        allowed = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--{name}={value!r} cannot be used; allowed: a finite {allowed}.")


def flat(config: Config) -> dict[str, Any]:
    """Returns every setting by its name, which no two groups share."""
    return {
        name: value
        for group in dataclasses.asdict(config).values()
        for name, value in group.items()
    }


def differences(old: Config, new: Config) -> list[str]:
    """Returns one text `name: old -> new` for every setting that differs."""
    before, after = flat(old), flat(new)
    return [f"{n}: {before[n]} -> {after[n]}" for n in before if before[n] != after[n]]


def crop_area(text: str | None) -> tuple[float, float] | None:
    """Reads a range of shares such as `0.2-1`.

    Args:
        text: the range, or None.

    Raises:
        UserError: on another form, or shares outside 0 to 1.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        low = high = -1.0
    if not 0 < low <= high <= 1:
        raise UserError(f"--crop_area={text}; allowed: LOW-HIGH within 0 to 1, such as 0.2-1.")
    return low, high
