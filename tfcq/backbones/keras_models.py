"""Backbones that others built: `keras.applications` and saved `.keras` files."""

import inspect
import os

import keras
from keras import layers

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.quantizable import load


def application(name: str, input_shape: tuple[int, int, int]) -> keras.Model:
    """Returns a network of `keras.applications` with random weights, without classifier.

    It takes images in [0, 1], also where Keras's own would scale those of 0 to 255 first.

    Args:
        name: its name there, such as `"MobileNetV2"`.
        input_shape: height, width and channels of the images.

    Raises:
        UserError: on an unknown name, or images that the network cannot take.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        raise unknown_choice("network of keras.applications", name, names)
    constructor = getattr(keras.applications, name)
    settings = {"include_top": False, "weights": None, "pooling": "avg"}
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        settings["include_preprocessing"] = False
    try:
        network = constructor(input_shape=input_shape, **settings)
        if any(isinstance(layer, layers.Rescaling) for layer in network.layers):
            images = keras.Input(input_shape)
            network = constructor(input_tensor=layers.Rescaling(255.0)(images), **settings)
        return network
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot take images of shape {input_shape}: {reason}") from None


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
