"""The pixels that a model takes: found from its first layers, and put in front of it.

Networks are trained on pixels of 0 to 255, of 0 to 1 or of -1 to 1, and a model that is given
others computes without an error, and wrong.
"""

from typing import Any

import keras
import numpy as np

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.cloning import free_name, functional, with_first_layer
from tfcq.nn.placement import read_graph
from tfcq.settings.backbones import INPUT_RANGES, UNIT_RANGE

# What a first kernel is given, as a rule, spans no less and no more than this.
_NARROWEST, _WIDEST = 0.3, 16.0
# Pixels of 0 to 255 that are shifted but not scaled: `keras.applications` takes off about 110.
_SHIFT_OF_PIXELS = 16.0
_PREPROCESSING = {
    "Rescaling", "Normalization", "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "GetItem",
    "Stack", "Concatenate", "Split", "Unstack", "Flip", "Cast", "Dropout", "ZeroPadding2D",
    "Resizing", "CenterCrop", "InputLayer", "Identity",
}  # fmt: skip
_ANY_SIZE = 64
_TOO_LARGE, _TOO_SMALL = 10, 100


def found_input_range(model: keras.Model) -> str | None:
    """Returns the pixels that a model's first layers make a kernel's inputs of.

    Those layers are `Rescaling`, `Normalization`, sums and products with constants, as
    `keras.applications` preprocesses images, and what leaves values as they are.

    Args:
        model: a functional or sequential model.

    Returns:
        A name in `INPUT_RANGES`; None where the first layers do not tell.
    """
    shape = model.input_shape
    if len(model.inputs) != 1 or not isinstance(shape, tuple) or len(shape) != 4 or not shape[3]:
        return None
    if "int" in model.inputs[0].dtype:
        return "0-255"
    size = [length or _ANY_SIZE for length in shape[1:3]]
    constants = np.array([0, 0.5, 1, 255], np.float32).reshape(4, 1, 1, 1)
    images = np.broadcast_to(constants, (4, *size, shape[3]))
    seen = _preprocessed(model, images)
    black, grey, white, bright = seen[:, seen.shape[1] // 2, seen.shape[2] // 2].astype(np.float64)
    scale = white - black
    if not np.allclose(grey - black, scale / 2, atol=1e-4):
        return None
    if np.allclose(scale, 1, atol=1e-4):
        return "0-255" if np.max(np.abs(black)) > _SHIFT_OF_PIXELS else None
    if np.allclose(scale, 0.5) and np.allclose(black, 0.5):
        return "-1-1"
    spans = {"0-255": np.max(np.abs(bright - black)), UNIT_RANGE: np.max(np.abs(scale))}
    fits = [name for name, span in spans.items() if _NARROWEST <= span <= _WIDEST]
    return fits[0] if len(fits) == 1 else None


def _preprocessed(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns what the first layer that does more than preprocess reads."""
    model = functional(model)
    operations = {operation.name: operation for operation in model.operations}
    nodes = read_graph(model.get_config())
    inside: set[str] = set()
    for name, node in nodes.items():
        if _preprocesses(operations[name]) and inside.issuperset(node.producers):
            inside.add(name)
    read = {name for node in nodes.values() if node.name not in inside for name in node.producers}
    last = sorted(read & inside)
    if len(last) != 1:
        return images
    # Of several outputs, as of channels that are split, any one tells.
    output, *_ = keras.tree.flatten(operations[last[0]].output)
    seen = keras.Model(model.inputs[0], output)(images, training=False)
    (reader, *others) = (operations[name] for name in nodes[last[0]].consumers)
    inner = isinstance(reader, keras.Model) and not others
    return _preprocessed(reader, np.asarray(seen)) if inner else np.asarray(seen)


def _preprocesses(operation: Any) -> bool:
    if isinstance(operation, keras.Model):
        return all(_preprocesses(layer) for layer in operation.layers)
    kind = type(operation).__name__
    # Keras's augmentation leaves images alone outside training.
    return kind in _PREPROCESSING or kind.startswith("Random")


def check_input_range(name: str) -> None:
    """Refuses the name of a range that there is not.

    Args:
        name: the name.

    Raises:
        UserError: naming the nearest.
    """
    if name not in INPUT_RANGES:
        raise unknown_choice("input_range", name, INPUT_RANGES)


def known_input_range(model: keras.Model, name: str | None) -> str:
    """Returns the pixels that a model takes: as told, as found, or else 0 to 1.

    Args:
        model: the model.
        name: a name in `INPUT_RANGES`; None where nobody told.

    Raises:
        UserError: when there is no such range.
    """
    if name is not None:
        check_input_range(name)
    return name or found_input_range(model) or UNIT_RANGE


def is_far_below(size: float, name: str) -> bool:
    """Whether images miss a range by being too dark, as those from 0 to 1 where 255 is white.

    Args:
        size: their greatest absolute value.
        name: the pixels that a model takes, a name in `INPUT_RANGES`.
    """
    return 0 < size <= max(map(abs, INPUT_RANGES[name])) / _TOO_SMALL


def check_pixels(images: Any, name: str, model: keras.Model) -> None:
    """Refuses images that miss a range by an order of magnitude.

    Args:
        images: array of images.
        name: the pixels that the model takes, a name in `INPUT_RANGES`.
        model: the model, for the message.

    Raises:
        UserError: saying what was received and which ranges there are.
    """
    largest = max(abs(end) for end in INPUT_RANGES[name])
    least, greatest = float(np.min(images)), float(np.max(images))
    size = max(abs(least), abs(greatest))
    if size > _TOO_LARGE * largest or is_far_below(size, name):
        low, high = INPUT_RANGES[name]
        raise UserError(
            f"Images from {least:g} to {greatest:g} were received, and model {model.name!r} takes "
            f"pixels from {low:g} to {high:g}; scale them, or say otherwise with input_range: "
            f"{', '.join(repr(other) for other in INPUT_RANGES)}."
        )


def with_unit_input(model: keras.Model, name: str) -> keras.Model:
    """Returns a model that takes pixels from 0 to 1 and first makes of them what a model takes.

    Args:
        model: a functional model of images.
        name: the pixels that it takes, a name in `INPUT_RANGES`.
    """
    low, high = INPUT_RANGES[name]
    if name == UNIT_RANGE:
        return model
    model = functional(model)
    names = [operation.name for operation in model.operations]
    rescaling = keras.layers.Rescaling(high - low, low, name=free_name("input_range", names))
    return with_first_layer(model, rescaling)


def to_unit(images: np.ndarray, name: str) -> np.ndarray:
    """Returns images of a range as images from 0 to 1, float32.

    Args:
        images: array of images.
        name: their pixels, a name in `INPUT_RANGES`.
    """
    low, high = INPUT_RANGES[name]
    return ((np.asarray(images, np.float64) - low) / (high - low)).astype(np.float32)


def from_unit(images: Any, name: str) -> Any:
    """Returns images from 0 to 1 as images of a range.

    Args:
        images: float tensor of images.
        name: the pixels that are wanted, a name in `INPUT_RANGES`.
    """
    low, high = INPUT_RANGES[name]
    return images if name == UNIT_RANGE else images * (high - low) + low
