"""A backbone from its settings."""

import functools
from collections.abc import Callable

import keras

from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.backbones.input_normalization import with_normalized_input
from tfcq.backbones.keras_models import application, backbone_from_file
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.backbones.resnet import resnet
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.nn.input_range import known_input_range, with_unit_input
from tfcq.settings.backbones import (
    APPLICATION,
    FILE,
    NORMALIZATION,
    UNIT_RANGE,
    cifar_depth,
    normalization,
    settings_of,
)
from tfcq.settings.training_groups import NetworkSettings

_BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet18": functools.partial(resnet, 18),
    "resnet34": functools.partial(resnet, 34),
    "resnet50": functools.partial(resnet, 50),
    "mobilenet_v2": mobilenet_v2,
    "vit_tiny": functools.partial(vision_transformer, "tiny"),
    "vit_small": functools.partial(vision_transformer, "small"),
}


def backbone_from(network: NetworkSettings, shape: tuple[int, int, int]) -> keras.Model:
    """Returns a float backbone.

    Args:
        network: the settings.
        shape: height, width and channels of a view.

    Raises:
        UserError: when it cannot be built, or a file cannot be read or does not fit the images.
    """
    model = _backbone(network, shape)
    numbers = normalization(network.input_mean, network.input_std)
    return with_normalized_input(model, *numbers) if numbers else model


def _backbone(network: NetworkSettings, shape: tuple[int, int, int]) -> keras.Model:
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
        return _for_unit_pixels(backbone_from_file(rest, shape), network.backbone)
    return _BACKBONES[network.backbone](input_shape=shape, **given)


def _for_unit_pixels(model: keras.Model, title: str) -> keras.Model:
    """Returns a model of a file that takes pixels from 0 to 1, as those of this library do."""
    taken = known_input_range(model, None)
    if taken == UNIT_RANGE:
        return model
    print(f"{title} takes pixels in {taken}, which a layer in front makes of 0-1.", flush=True)
    return with_unit_input(model, taken)
