"""Backbones that others built: `keras.applications` and saved `.keras` files."""

import inspect
import os
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.loading import load


def application(
    name: str,
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    classifier: bool = False,
) -> keras.Model:
    """Returns a network of `keras.applications` that takes images in [0, 1].

    Random weights get the images as they are, but where Keras's own network would scale those of 0
    to 255 first. Other weights get what they were trained on, by Keras's own preprocessing.

    Args:
        name: its name there, such as `"MobileNetV2"`.
        input_shape: height, width and channels of the images.
        weights: `"imagenet"`, which Keras downloads once and keeps; the path of a `.weights.h5`
            file of the same network; or None for random ones.
        classifier: whether it returns logits of ImageNet's 1,000 classes, instead of features.

    Raises:
        UserError: on an unknown name, images that the network cannot take, or weights that cannot
            be had.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        raise unknown_choice("network of keras.applications", name, names)
    constructor = getattr(keras.applications, name)
    settings: dict[str, Any] = {"weights": weights, "include_top": classifier}
    settings |= {"classifier_activation": None} if classifier else {"pooling": "avg"}
    own_preprocessing = "include_preprocessing" in inspect.signature(constructor).parameters
    if own_preprocessing:
        settings["include_preprocessing"] = weights is not None
    if weights not in (None, "imagenet") and name.startswith("EfficientNetB"):
        raise UserError(
            f"{name} is another network with ImageNet's weights than without, and {weights!r} does "
            "not tell which it is of; allowed: weights 'imagenet', or a .keras file of the network."
        )
    try:
        plain = constructor(input_shape=input_shape, **settings | {"weights": None})
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot take images of shape {input_shape}: {reason}") from None
    scale, offset, reverses = _preprocessing(name, plain, weights is not None)
    if scale is None:
        return plain
    scaled = layers.Rescaling(scale, offset)(keras.Input(input_shape))
    try:
        network = constructor(input_shape=input_shape, input_tensor=scaled, **settings)
    except Exception as error:
        # Keras raises no narrower one where it cannot download.
        if weights is None:
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot have weights {weights!r}: {reason}") from None
    if reverses:
        _reverse_channels(network)
    return network


def _preprocessing(name: str, network: keras.Model, trained: bool) -> tuple[Any, Any, bool]:
    """Returns scale and offset that images in [0, 1] need, and whether their channels turn round.

    The scale is None where they need nothing.
    """
    if any(isinstance(layer, layers.Rescaling) for layer in network.layers):
        return 255.0, 0.0, False
    if not trained:
        return None, 0.0, False
    modules = vars(keras.applications).values()
    (preprocess, *_) = (
        module.preprocess_input
        for module in modules
        if inspect.ismodule(module) and hasattr(module, name)
    )
    # Each is affine by channel, perhaps behind a turn of the channels: three pixels tell all.
    black, red, white = (
        np.asarray(preprocess(np.array([[[pixel]]], np.float32)))[0, 0, 0].astype(np.float64)
        for pixel in ([0, 0, 0], [255, 0, 0], [255, 255, 255])
    )
    reverses = bool(red[0] == black[0])
    scale, offset = white - black, black
    if reverses:
        scale, offset = scale[::-1], offset[::-1]
    return scale.tolist(), offset.tolist(), reverses


def _reverse_channels(network: keras.Model) -> None:
    """Lets a network of blue, green and red images take red, green and blue ones."""
    first = next(layer for layer in network.layers if hasattr(layer, "kernel"))
    first.kernel.assign(np.asarray(first.kernel)[..., ::-1, :])


def backbone_from_file(path: str | os.PathLike, input_shape: tuple[int, int, int]) -> keras.Model:
    """Returns the model of a `.keras` file, with its weights.

    Args:
        path: the file.
        input_shape: height, width and channels of the images.

    Raises:
        UserError: when it cannot be read or takes other images.
    """
    model = load(path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; allowed: one "
            "of each."
        )
    taken = tuple(model.input_shape[1:])
    if len(taken) != 3 or any(a not in (None, b) for a, b in zip(taken, input_shape, strict=True)):
        same_channels = len(taken) == 3 and taken[2] in (None, input_shape[2])
        way_out = "Give --image_size, or another file." if same_channels else "Give another file."
        raise UserError(
            f"{path} takes images of shape {taken}; the run's have {tuple(input_shape)}. {way_out}"
        )
    return model
