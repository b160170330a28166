"""The settings of a run: one tree of frozen dataclasses, seen as flags and as JSON.

Needs no TensorFlow, so that a mistake is told before its start-up.
"""

import dataclasses
import json
import math
import types
import typing
from typing import Any

from tfcq.backbones.names import BACKBONE_HELP, check_backbone_name
from tfcq.data.names import check_dataset_name
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import ACTIVATION_QUANTIZER_NAMES, POLICIES, WEIGHT_QUANTIZER_NAMES
from tfcq.pretraining.framework_settings import (
    FRAMEWORK_SETTINGS,
    MOMENTUM_SCHEDULES,
    REGRESSION_LOSSES,
    TARGET_UPDATES,
    framework_settings,
)
from tfcq.pretraining.recipes import Recipe, recipe_named
from tfcq.pretraining.schedule_names import BIT_SCHEDULES
from tfcq.quantization.bitwidths import parse_bit_choices
from tfcq.training.durations import Duration, parse_duration

STEMS = ("cifar", "imagenet")
SHORTCUTS = ("identity", "projection")
LEARNING_RATE_SCHEDULES = ("cosine", "constant", "step")
OPTIMIZERS = ("sgd", "lars", "adamw")
LOSS_REDUCTIONS = ("mean", "sum")
STRATEGIES = ("single", "mirrored", "tpu")
BATCH_NORMS = ("local", "synchronized", "shuffled")
CALIBRATION_IMAGES = 1000
CALIBRATION_HELP = f"training images that set the ranges; default {CALIBRATION_IMAGES:,} or all"
_FRAMEWORK_SETTINGS = tuple(
    dict.fromkeys(name for settings in FRAMEWORK_SETTINGS.values() for name in settings)
)
_BITS = ("weight_bits", "activation_bits", "precision_set")
_LEARNED = ("lsq", "pact")
_SHARES = ("flip", "jitter_probability", "grayscale", "blur")
_WITHIN = {name: (0, 1) for name in _SHARES} | {"hue": (0, 0.5), "seed": (0, 2**32 - 1)}


def _setting(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices})


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The images."""

    dataset: str = _setting("digits", "digits, folder:PATH, or the name of a TFDS data set")
    data_dir: str | None = _setting(None, "folder of prepared TFDS data sets")
    download: bool = _setting(False, "let TFDS download what is not prepared")
    strict_data: bool = _setting(False, "refuse a folder with a broken image instead of skipping")
    image_size: int | None = _setting(None, "height and width of a view in pixels; default native")
    train_images: int | None = _setting(None, "pre-train on the first so many images; default all")


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How views are augmented; defaults depend on image size and channels."""

    crop_area: str | None = _setting(None, "area of a crop as a share of the image, such as 0.2-1")
    flip: float | None = _setting(None, "probability of a left-right flip")
    jitter_probability: float | None = _setting(None, "probability of any colour jitter")
    brightness: float | None = _setting(None, "strength of brightness jitter")
    contrast: float | None = _setting(None, "strength of contrast jitter")
    saturation: float | None = _setting(None, "strength of saturation jitter")
    hue: float | None = _setting(None, "strength of hue jitter, at most 0.5")
    grayscale: float | None = _setting(None, "probability of losing colour")
    blur: float | None = _setting(None, "probability of Gaussian blur")


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The backbone and its quantizers."""

    backbone: str = _setting("resnet18", BACKBONE_HELP)
    stem: str | None = _setting(
        None, "first layers, for small or for large images; default cifar", STEMS
    )
    width: int | None = _setting(None, "channels of the first stage; default the paper's")
    shortcut: str | None = _setting(
        None, "where a CIFAR ResNet changes size: pad with zeros, or project", SHORTCUTS
    )
    patch_size: int | None = _setting(None, "height and width of a transformer's patch in pixels")
    frozen_patch_projection: bool = _setting(False, "leave a transformer's patch layer random")
    policy: str | None = _setting(
        None, "which layers are quantized; default the recipe's", tuple(POLICIES)
    )
    weight_quantizer: str | None = _setting(
        None, "how weights are rounded; default the policy's", WEIGHT_QUANTIZER_NAMES
    )
    activation_quantizer: str | None = _setting(
        None, "how activations are rounded; default the policy's", ACTIVATION_QUANTIZER_NAMES
    )


@dataclasses.dataclass(frozen=True)
class MethodSettings:
    """Framework, recipe and bit-widths."""

    framework: str = _setting("simsiam", "how embeddings are compared", tuple(FRAMEWORK_SETTINGS))
    recipe: str = _setting("ssql", "a name of --list_recipes, or pairs such as v1@q->v2@fp")
    loss_reduction: str = _setting("mean", "mean or sum over the recipe's pairs", LOSS_REDUCTIONS)
    weight_bits: str | None = _setting(
        None, "weight bits to draw from, such as 2-8, 4 or 2,4,8; default the recipe's"
    )
    activation_bits: str | None = _setting(
        None, "activation bits to draw from, such as 4-8; default the recipe's"
    )
    precision_set: str | None = _setting(
        None, "bits drawn for weights and activations alike, such as 6-16; default the recipe's"
    )
    bit_schedule: str = _setting(
        "uniform", "draw bits anew each step or epoch, in cycles, in order, or never", BIT_SCHEDULES
    )
    projection_width: int | None = _setting(None, "width of the embedding; default the paper's")
    projection_hidden: int | None = _setting(None, "width of the projector's hidden layers")
    predictor_width: int | None = _setting(None, "width of the predictor's hidden layer")
    temperature: float | None = _setting(None, "temperature of a contrastive loss")
    queue_size: int | None = _setting(None, "keys in MoCo v2's queue")
    regression_loss: str | None = _setting(None, "BYOL's loss", REGRESSION_LOSSES)
    target_momentum: float | None = _setting(None, "momentum of the target network")
    target_momentum_schedule: str | None = _setting(
        None, "course of the target network's momentum", MOMENTUM_SCHEDULES
    )
    target_update: str | None = _setting(
        None, "when the target network follows the trained one", TARGET_UPDATES
    )

    def framework_settings(self) -> dict[str, Any]:
        """Returns the settings of the framework that were given."""
        values = {name: getattr(self, name) for name in _FRAMEWORK_SETTINGS}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class OptimizationSettings:
    """Optimizer, learning rate and length."""

    epochs: int = _setting(100, "passes over the training images")
    duration: str | None = _setting(
        None, "length in steps or images instead of --epochs, such as 5000steps or 1e6examples"
    )
    batch_size: int = _setting(256, "images per step, over all replicas")
    optimizer: str = _setting("sgd", "the optimizer", OPTIMIZERS)
    learning_rate: float = _setting(0.05, "highest learning rate")
    scale_learning_rate: bool = _setting(False, "multiply the learning rate by batch size / 256")
    learning_rate_schedule: str = _setting(
        "cosine", "course of the learning rate", LEARNING_RATE_SCHEDULES
    )
    milestones: str | None = _setting(
        None, "when 'step' lowers the rate, such as 60epochs,80epochs"
    )
    milestone_factor: float = _setting(0.1, "what a milestone multiplies the learning rate by")
    warmup: str = _setting("0epochs", "linear warm-up, such as 10epochs or 500steps")
    momentum: float = _setting(0.9, "momentum of SGD and LARS, beta 1 of AdamW")
    nesterov: bool = _setting(False, "Nesterov momentum")
    weight_decay: float = _setting(
        1e-4, "l2 penalty in the gradient (SGD, LARS) or decoupled decay (AdamW)"
    )
    exclude: str | None = _setting(
        None, "patterns of variables without weight decay, such as bias,gamma,beta"
    )

    def length(self) -> Duration:
        """Returns how long the run is."""
        return Duration(self.epochs) if self.duration is None else parse_duration(self.duration)

    def milestone_durations(self) -> tuple[Duration, ...]:
        """Returns when the learning rate falls."""
        if self.milestones is None:
            return ()
        return tuple(parse_duration(text) for text in self.milestones.split(","))

    def excluded(self) -> tuple[str, ...] | None:
        """Returns the patterns of variables that are not decayed; None for the optimizer's own."""
        return None if self.exclude is None else tuple(self.exclude.split(","))


@dataclasses.dataclass(frozen=True)
class ExecutionSettings:
    """How the run is carried out."""

    seed: int = _setting(0, "seed of initialization, order, views and drawn bits")
    deterministic: bool = _setting(False, "repeat to the last bit, at the cost of speed")
    xla: bool = _setting(False, "compile the step with XLA (slower on CPUs)")
    strategy: str = _setting("single", "devices: one, all GPUs, or a TPU", STRATEGIES)
    batch_norm: str = _setting(
        "local", "statistics of each replica or all; or keys shuffled over them", BATCH_NORMS
    )


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
        self._check_method()
        self._check_optimization()
        crop_area(self.views.crop_area)
        self._check_numbers()

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
        at_least_one = [
            ("image_size", self.data.image_size),
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
    return config_from_flat(values)


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
