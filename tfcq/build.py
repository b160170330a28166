"""From names and settings to objects: the tables that the command lines look things up in."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcq.backbones.resnet import resnet
from tfcq.config import Config, crop_area
from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.data.pipeline import labelled_arrays
from tfcq.data.sources import Source, Split, open_source, view_size
from tfcq.errors import UserError
from tfcq.evaluation.linear import check_labels
from tfcq.evaluation.sweep import LabelledImages
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.training.optimizers import SGD, learning_rate_schedule


def _resnet(depth: int) -> Callable[[Config, tuple[int, int, int]], keras.Model]:
    def build(config: Config, input_shape: tuple[int, int, int]) -> keras.Model:
        return resnet(depth, config.network.stem, config.network.width, input_shape)

    return build


BACKBONES = {"resnet18": _resnet(18), "resnet34": _resnet(34), "resnet50": _resnet(50)}


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
    """
    method, optimization = config.method, config.optimization
    model = Pretrainer(
        BACKBONES[config.network.backbone](config, shape),
        framework=method.framework,
        recipe=method.recipe,
        weight_bits=method.weight_bits,
        activation_bits=method.activation_bits,
        bit_schedule=method.bit_schedule,
        policy=config.network.policy,
        seed=config.execution.seed,
        projection_width=method.projection_width,
        predictor_width=method.predictor_width,
    )
    rate = learning_rate_schedule(
        optimization.learning_rate_schedule,
        optimization.learning_rate,
        optimization.epochs * steps,
        round(optimization.warmup_epochs * steps),
    )
    optimizer = SGD(rate, optimization.momentum, optimization.weight_decay)
    model.compile(optimizer, jit_compile=config.execution.xla)
    return model


def labelled_images(config: Config) -> LabelledImages:
    """Returns the run's training images and the whole test split, with labels.

    Args:
        config: the settings.

    Raises:
        UserError: when the data set has no labels or no test split.
    """
    train = training_split(config)
    if train.class_names is None:
        raise UserError(
            f"Data set {config.data.dataset!r} has no labels; allowed here: one with classes, such "
            "as a folder with one sub-folder per class."
        )
    test = source(config).split("test")
    if train.image_shape[2] != test.image_shape[2]:
        raise UserError(
            f"Training images have {train.image_shape[2]} channels and test images "
            f"{test.image_shape[2]}; allowed: the same in both."
        )
    size = image_shape(config, train)[0]
    data = LabelledImages(
        *labelled_arrays(train, size), *labelled_arrays(test, size), len(train.class_names)
    )
    check_labels(data.train_images, data.train_labels, data.classes)
    check_labels(data.test_images, data.test_labels, data.classes)
    return data


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
