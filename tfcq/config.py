"""The settings of a run: one tree of frozen dataclasses, seen as flags and as JSON.

Needs no TensorFlow, so that a mistake is told before its start-up.
"""

import dataclasses
import json
import math
import types
import typing
from typing import Any

from tfcq.data.names import check_dataset_name
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import POLICIES
from tfcq.pretraining.recipes import recipe_named
from tfcq.quantization.bitwidths import parse_bit_choices

BACKBONES = ("resnet18", "resnet34", "resnet50")
STEMS = ("cifar", "imagenet")
FRAMEWORKS = ("simsiam",)
BIT_SCHEDULES = ("uniform", "list")
LEARNING_RATE_SCHEDULES = ("cosine", "constant")
_SHARES = ("flip", "jitter_probability", "grayscale", "blur")
_WITHIN = {name: (0, 1) for name in _SHARES} | {"hue": (0, 0.5), "seed": (0, 2**32 - 1)}
_QUANTIZED_ONLY = ("weight_bits", "activation_bits", "bit_schedule")


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
    """The backbone."""

    backbone: str = _setting("resnet18", "the network", BACKBONES)
    stem: str = _setting("cifar", "first layers: for small or for large images", STEMS)
    width: int = _setting(64, "channels of the first stage")
    policy: str = _setting("paper", "which layers are quantized", tuple(POLICIES))


@dataclasses.dataclass(frozen=True)
class MethodSettings:
    """Framework, recipe and bit-widths."""

    framework: str = _setting("simsiam", "how embeddings are compared", FRAMEWORKS)
    recipe: str = _setting("ssql", "float, ssql, ssql_no_aux, or pairs such as v1@q->v2@fp")
    weight_bits: str = _setting("2-8", "weight bits to draw from: 2-8, 4 or 2,4,8")
    activation_bits: str = _setting("4-8", "activation bits to draw from: 4-8, 8 or 4,8")
    bit_schedule: str = _setting("uniform", "draw anew each step, or go in order", BIT_SCHEDULES)
    projection_width: int = _setting(2048, "width of projector and embedding")
    predictor_width: int = _setting(512, "width of the predictor's hidden layer")


@dataclasses.dataclass(frozen=True)
class OptimizationSettings:
    """SGD with momentum."""

    epochs: int = _setting(100, "passes over the training images")
    batch_size: int = _setting(256, "images per step, over all replicas")
    learning_rate: float = _setting(0.05, "highest learning rate")
    learning_rate_schedule: str = _setting(
        "cosine", "course of the learning rate", LEARNING_RATE_SCHEDULES
    )
    warmup_epochs: float = _setting(0.0, "epochs of linear warm-up")
    momentum: float = _setting(0.9, "momentum of SGD")
    weight_decay: float = _setting(1e-4, "l2 penalty, added to the gradient as in the papers")


@dataclasses.dataclass(frozen=True)
class ExecutionSettings:
    """How the run is carried out."""

    seed: int = _setting(0, "seed of initialization, order, views and drawn bits")
    deterministic: bool = _setting(False, "repeat to the last bit, at the cost of speed")
    xla: bool = _setting(False, "compile the step with XLA (slower on CPUs)")


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
                if choices and value not in choices:
                    raise unknown_choice(field.name, value, choices)
        check_dataset_name(self.data.dataset)
        parse_bit_choices(self.method.weight_bits)
        parse_bit_choices(self.method.activation_bits)
        recipe_named(self.method.recipe)
        crop_area(self.views.crop_area)
        self._check_numbers()

    def _check_numbers(self) -> None:
        at_least_one = [
            ("image_size", self.data.image_size),
            ("train_images", self.data.train_images),
            ("width", self.network.width),
            ("projection_width", self.method.projection_width),
            ("predictor_width", self.method.predictor_width),
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
        for name in ("weight_decay", "warmup_epochs"):
            if getattr(optimization, name) < 0:
                raise UserError(f"--{name}={getattr(optimization, name)}; allowed: 0 and above.")
        if optimization.warmup_epochs > optimization.epochs:
            raise UserError(
                f"--warmup_epochs={optimization.warmup_epochs} with --epochs="
                f"{optimization.epochs}; allowed: at most {optimization.epochs}."
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
