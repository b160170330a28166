"""From names and settings to objects: the tables that the command lines look things up in."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.backbones.input_normalization import with_normalized_input
from tfcq.backbones.keras_models import application, backbone_from_file
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.backbones.names import (
    APPLICATION,
    FILE,
    NORMALIZATION,
    cifar_depth,
    normalization,
    settings_of,
)
from tfcq.backbones.resnet import resnet
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.config import Config, crop_area
from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.data.sources import Source, Split, open_source, view_size
from tfcq.errors import UserError
from tfcq.evaluation.task import Training
from tfcq.nn.activation_ranges import is_trained_quantized, mark_trained
from tfcq.nn.float_model import requantizable
from tfcq.nn.policies import Policy
from tfcq.nn.quantizable import QuantizableModel, load
from tfcq.pretraining.framework_settings import FRAMEWORK_SETTINGS
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.recipes import recipe_named
from tfcq.protocol_presets import LabelledTraining
from tfcq.run_folder import RunFolder
from tfcq.settings import OptimizationSettings
from tfcq.training.distribution import synchronize_batch_norm
from tfcq.training.durations import Duration, parse_duration
from tfcq.training.optimizers import optimizer_named
from tfcq.training.schedules import learning_rate_schedule, scaled_learning_rate


def backbone(config: Config, shape: tuple[int, int, int]) -> keras.Model:
    """Returns the float backbone of a run.

    Args:
        config: the settings.
        shape: height, width and channels of a view.

    Raises:
        UserError: when it cannot be built, or a file cannot be read or does not fit the images.
    """
    model = _backbone(config, shape)
    numbers = normalization(config.network.input_mean, config.network.input_std)
    return with_normalized_input(model, *numbers) if numbers else model


def _backbone(config: Config, shape: tuple[int, int, int]) -> keras.Model:
    network = config.network
    own = settings_of(network.backbone) - NORMALIZATION
    given = {name: getattr(network, name) for name in own}
    given = {name: value for name, value in given.items() if value is not None}
    kind, _, rest = network.backbone.partition(":")
    depth = cifar_depth(network.backbone)
    if depth is not None:
        return cifar_resnet(depth, input_shape=shape, **given)
    if kind == APPLICATION:
        return application(rest, shape)
    if kind == FILE:
        return backbone_from_file(rest, shape)
    return _BACKBONES[network.backbone](input_shape=shape, **given)


_BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet18": functools.partial(resnet, 18),
    "resnet34": functools.partial(resnet, 34),
    "resnet50": functools.partial(resnet, 50),
    "mobilenet_v2": mobilenet_v2,
    "vit_tiny": functools.partial(vision_transformer, "tiny"),
    "vit_small": functools.partial(vision_transformer, "small"),
}


def source(config: Config) -> Source:
    """Opens the run's data set.

    Args:
        config: the settings.

    Raises:
        UserError: when it is unknown or not prepared.
    """
    data = config.data
    return open_source(data.dataset, data.data_dir, data.download, data.strict_data)


def training_split(config: Config) -> Split:
    """Returns the images that pre-training uses.

    Args:
        config: the settings.

    Raises:
        UserError: when fewer images are there than asked for.
    """
    split = source(config).split("train")
    return split.first(config.data.train_images) if config.data.train_images else split


def image_shape(config: Config, split: Split) -> tuple[int, int, int]:
    """Returns height, width and channels of a view.

    Args:
        config: the settings.
        split: the images.

    Raises:
        UserError: when no size is set and the images have no common square size.
    """
    size = view_size(split, config.data.image_size)
    return size, size, split.image_shape[2]


def augmentation(config: Config, shape: tuple[int, int, int]) -> Augmentation:
    """Returns how views are augmented: the standard of the image size, then the settings.

    Args:
        config: the settings.
        shape: height, width and channels of a view.

    Raises:
        UserError: on a value outside its range, or colour jitter on grey-scale images.
    """
    given = {k: v for k, v in dataclasses.asdict(config.views).items() if v is not None}
    if "crop_area" in given:
        given["crop_area"] = crop_area(given["crop_area"])
    chosen = dataclasses.replace(augmentation_for(shape[0], shape[2]), **given)
    chosen.check_channels(shape[2])
    return chosen


def pretrainer(config: Config, shape: tuple[int, int, int], steps: int) -> Pretrainer:
    """Returns the compiled model that pre-trains the run's backbone.

    Args:
        config: the settings.
        shape: height, width and channels of a view.
        steps: steps per epoch.

    Raises:
        UserError: on settings that do not fit each other or the length of the run.
    """
    method = config.method
    total = total_steps(config.optimization, steps)
    network = backbone(config, shape)
    model = Pretrainer(
        network,
        framework=method.framework,
        recipe=method.recipe,
        weight_bits=method.weight_bits,
        activation_bits=method.activation_bits,
        precision_set=method.precision_set,
        bit_schedule=method.bit_schedule,
        policy=_policy_for(config, network),
        seed=config.execution.seed,
        loss_reduction=method.loss_reduction,
        error_correlation=config.execution.error_correlation,
        shuffle_keys=config.execution.batch_norm == "shuffled",
        **method.framework_settings(),
    )
    model.set_run_length(steps, total)
    if config.execution.batch_norm == "synchronized":
        for network in model.networks:
            synchronize_batch_norm(network)
    model.compile(optimizer(config.optimization, steps), jit_compile=config.execution.xla)
    return model


def _policy_for(config: Config, network: keras.Model) -> Policy | None:
    """Returns how a backbone becomes quantizable; None for one that is so already."""
    if not isinstance(network, QuantizableModel):
        return policy(config)
    for name in ("policy", "layer_bits", "weight_quantizer", "activation_quantizer", "rounding"):
        if getattr(config.network, name) != getattr(type(config.network)(), name):
            raise UserError(
                f"--{name} has no effect here: {config.network.backbone} holds a model that is "
                "quantizable already, with quantizers of its own; leave it out."
            )
    return None


def total_steps(settings: OptimizationSettings, steps: int) -> int:
    """Returns how many steps a run has.

    Args:
        settings: the settings.
        steps: steps per epoch.

    Raises:
        UserError: when there is none.
    """
    return settings.length().steps(steps, settings.batch_size, at_least=1)


def policy(config: Config) -> Policy:
    """Returns which layers a run quantizes and how: the settings, then the recipe's.

    Args:
        config: the settings.
    """
    network, recipe = config.network, recipe_named(config.method.recipe)
    chosen = recipe.policy_for(network.policy).with_layer_bits(network.layer_bits)
    chosen = chosen.with_quantizers(network.weight_quantizer, network.activation_quantizer)
    return dataclasses.replace(chosen, rounding=network.rounding)


def optimizer(settings: OptimizationSettings, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a run with its learning rate.

    Args:
        settings: the settings.
        steps: steps per epoch.

    Raises:
        UserError: on a warm-up or milestone outside the run.
    """

    def in_steps(duration: Duration) -> int:
        return duration.steps(steps, settings.batch_size)

    highest = settings.learning_rate
    if settings.scale_learning_rate:
        highest = scaled_learning_rate(highest, settings.batch_size)
    rate = learning_rate_schedule(
        settings.learning_rate_schedule,
        highest,
        total_steps(settings, steps),
        in_steps(parse_duration(settings.warmup)),
        tuple(map(in_steps, settings.milestone_durations())),
        settings.milestone_factor,
    )
    return optimizer_named(
        settings.optimizer,
        rate,
        settings.momentum,
        settings.weight_decay,
        settings.excluded(),
        settings.nesterov,
    )


def training(settings: LabelledTraining) -> Training:
    """Returns how a classifier is trained.

    Args:
        settings: epochs, batch size, optimizer, learning rate and start.
    """
    return Training(
        settings.epochs,
        settings.batch_size,
        lambda steps: optimizer(settings, steps),
        settings.classifier_start,
    )


def trained_backbone(folder: RunFolder, policy: str | Policy | None = None) -> QuantizableModel:
    """Returns the backbone of a run.

    Args:
        folder: the run.
        policy: how it is quantized instead of the way it was trained; None for that way.

    Raises:
        UserError: when it cannot be read, or not be quantized so.
    """
    model, method = load(folder.backbone), folder.load().method
    target_network = "target_momentum" in FRAMEWORK_SETTINGS[method.framework]
    passes = recipe_named(method.recipe).online_passes(target_network)
    if not any(one.is_float for one in passes) and not is_trained_quantized(model):
        # A file of before that was noted.
        mark_trained(model, quantized=True)
    return model if policy is None else requantizable(model, policy)


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    return {
        "tfcq": importlib.metadata.version("tfcq"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
