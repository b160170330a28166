"""A trained ResNet taken apart for a detector: a trunk of any image size, and its last stage."""

import dataclasses
import fnmatch
import re
from collections.abc import Sequence

import keras
from keras import layers

from tfcq.detection.stages import check_stages
from tfcq.nn.cloning import cloned, same_layer, with_first_layer
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.float_model import float_model
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.policies import ALL_FLOAT, Policy

_END = re.compile(r"stage(\d)_block(\d+)_relu")
# Pixels of the image to a cell of each stage, behind a stem for large images.
STRIDES = {1: 4, 2: 8, 3: 16, 4: 32}


def any_size(backbone: keras.Model) -> keras.Model:
    """Returns a float copy of a backbone, weights included, that takes images of any size.

    Args:
        backbone: a ResNet of this library with the stem for large images, quantizable or not.

    Raises:
        UserError: when it is another network.
    """
    plain = float_model(backbone) if isinstance(backbone, QuantizableModel) else backbone
    check_stages(backbone.name, {layer.name for layer in plain.layers})
    shape = (None, None, plain.input_shape[-1])
    copy = cloned(plain, same_layer, inputs=keras.Input(shape, name="images"))
    copy_weights(plain, copy)
    return copy


def part_policy(part: keras.Model, policy: Policy, heads: Sequence[str]) -> Policy:
    """Returns how a network of a detector is quantized where its heads stay in float.

    Args:
        part: the network.
        policy: how the rest is quantized.
        heads: patterns of the layers that are no backbone's.
    """
    kernels = [layer.name for layer in part.layers if hasattr(layer, "kernel")]
    own = [pattern for pattern in heads if fnmatch.filter(kernels, pattern)]
    if all(any(fnmatch.fnmatchcase(name, pattern) for pattern in own) for name in kernels):
        return ALL_FLOAT if own else policy
    return dataclasses.replace(
        policy, overrides=(*((pattern, "fp") for pattern in own), *policy.overrides)
    )


def stage_outputs(backbone: keras.Model) -> dict[int, keras.KerasTensor]:
    """Returns the features behind each stage of a ResNet, by its number.

    Args:
        backbone: the network.
    """
    found = {}
    for layer in backbone.layers:
        if match := _END.fullmatch(layer.name):
            # Blocks follow each other: the last one stays.
            found[int(match[1])] = layer.output
    return found


def trunk_and_last_stage(backbone: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Returns the first three stages of a ResNet, and the fourth as it reads regions of them (C4).

    Args:
        backbone: from `any_size`.

    Returns:
        Images to features at stride 16; regions of these, not negative, to features at half the
        size. A ReLU stands before the regions, which changes nothing: behind it they are quantized.
    """
    stages = stage_outputs(backbone)
    trunk = keras.Model(backbone.inputs[0], stages[3], name="trunk")
    last = keras.Model(stages[3], stages[4], name="last_stage")
    return trunk, with_first_layer(last, layers.ReLU(name="regions"))
