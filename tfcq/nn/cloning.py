"""Copies of models: as they are, or with other layers and other calls on the same graph."""

from collections.abc import Callable, Collection
from typing import Any

import keras

from tfcq.nn.copied_weights import give_weights

CloneLayer = Callable[[Any], Any]
CallLayer = Callable[..., Any]


def copy_of(model: keras.Model, weights: bool = True) -> Any:
    """Returns a copy of a functional model, of the same class.

    Args:
        model: the model.
        weights: whether weights, ranges and learned scales are copied too; otherwise they are
            initialized anew.
    """
    copy = type(model).from_config(model.get_config())
    if weights:
        give_weights(copy, model.get_weights())
    return copy


def cloned(
    model: keras.Model,
    clone_layer: CloneLayer | None = None,
    call_layer: CallLayer | None = None,
    kind: type[keras.Model] = keras.Model,
    inputs: Any = None,
) -> Any:
    """Returns a model of the same graph, with new weights; a nested model is one layer of it.

    Args:
        model: a functional model.
        clone_layer: returns the layer that takes one's place; None for one of the same
            configuration.
        call_layer: takes that layer and the arguments of its call; None to call it.
        kind: class of the model returned.
        inputs: a tensor that takes the place of the model's inputs; None for new ones.
    """
    replaced = None if inputs is None else keras.tree.map_structure(lambda _: inputs, model.input)
    clone = keras.models.clone_model(
        model,
        input_tensors=replaced,
        clone_function=clone_layer or _same,
        call_function=call_layer or _called,
        recursive=False,
    )
    return kind(clone.input if inputs is None else inputs, clone.output, name=model.name)


def without(names: Collection[str]) -> CallLayer:
    """Returns what calls every layer but those named, which hand their inputs on.

    Args:
        names: names of layers.
    """

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in names else layer(*args, **kwargs)

    return call_layer


def _same(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)
