"""Copies of models: as they are, or with other layers and other calls on the same graph."""

import inspect
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.copied_weights import copy_weights, give_weights
from tfcq.nn.precision import TakesPrecision

_CONFIGURED = (
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)
# What no scope of a TensorFlow graph has in its name.
UNFIT = r"[^A-Za-z0-9_.>-]"
CloneLayer = Callable[[Any], Any]
CallLayer = Callable[..., Any]


def functional(model: keras.Model) -> keras.Model:
    """Returns a sequential model as a functional one of the same layers, and others as they are.

    Args:
        model: the model.
    """
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def copy_of(model: keras.Model, weights: bool = True) -> Any:
    """Returns a copy of a functional or sequential model, quantizable if that is.

    Args:
        model: the model.
        weights: whether weights, ranges and learned scales are copied too; otherwise they are
            initialized anew.
    """
    kind = type(model) if isinstance(model, TakesPrecision) else keras.Model
    copy = cloned(functional(model), kind=kind)
    if weights:
        give_weights(copy, model.get_weights())
    return copy


def same_layer(
    layer: Any,
    config: dict[str, Any] | None = None,
    kind: type[keras.layers.Layer] | None = None,
) -> Any:
    """Returns a new layer of the same configuration and name, with new weights.

    Activations and other settings that are plain functions are the same functions. Where a class
    has no `get_config` of its own, what its constructor takes is all that is handed to it.

    Args:
        layer: a layer or operation; a model is copied whole.
        config: its configuration with changes; None for its own.
        kind: another class that takes it; None for the layer's own.

    Raises:
        UserError: when Keras quantized the layer, or it holds code that no file can hold.
    """
    if isinstance(layer, keras.Model):
        return copy_of(layer, weights=False)
    _refuse_foreign(layer)
    own, kind = layer.get_config(), kind or type(layer)
    config = dict(own if config is None else config)
    for name, text in own.items():
        value = getattr(layer, name, None)
        if inspect.isfunction(value) and config.get(name) == text:
            config[name] = value
    parameters = inspect.signature(kind.__init__).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        config = {name: value for name, value in config.items() if name in parameters}
    # A class that nobody registered is known by its name here, wrapped ones included.
    classes = {type(one).__name__: type(one) for one in _made_of(layer)}
    with keras.saving.custom_object_scope(classes):
        copy = kind.from_config(config)
    if "name" not in config:
        copy.name = layer.name
        if isinstance(layer, keras.layers.Layer):
            copy.trainable = layer.trainable
    return copy


def _refuse_foreign(layer: Any) -> None:
    """Raises for a layer that Keras itself quantized, or whose code no file can hold."""
    if getattr(layer, "quantization_mode", None) is not None:
        raise UserError(
            f"Layer {layer.name!r} was quantized by Keras's quantize({layer.quantization_mode!r}) "
            "already; allowed: the float model, before that call."
        )
    if isinstance(layer, keras.layers.Lambda):
        raise UserError(
            f"Layer {layer.name!r} (Lambda) holds Python code that is neither copied nor exported; "
            "allowed: operations of keras.ops on the tensor itself, or a class with get_config."
        )


def _made_of(layer: Any) -> Iterator[Any]:
    """Yields a layer, those that it holds, and the objects that it was configured with."""
    yield layer
    for value in vars(layer).values():
        if isinstance(value, (keras.layers.Layer, *_CONFIGURED)) and value is not layer:
            yield from _made_of(value)


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
    if model.compiled:
        # Keras would compile the copy too, with losses that may not be copied.
        model = keras.Model(model.input, model.output, name=model.name)
    replaced = None if inputs is None else keras.tree.map_structure(lambda _: inputs, model.input)
    clone = keras.models.clone_model(
        model,
        input_tensors=replaced,
        clone_function=clone_layer or same_layer,
        call_function=call_layer or _called,
        recursive=False,
    )
    return kind(clone.input if inputs is None else inputs, clone.output, name=model.name)


def with_first_layer(model: keras.Model, layer: keras.layers.Layer) -> Any:
    """Returns a copy of a model, weights included, in which a layer stands before all others.

    Where the model takes whole numbers, the copy takes floats: from 0 to 1 all are 0 or 1.

    Args:
        model: a functional model with one input.
        layer: the layer, with its weights, which keeps the shape of its input.
    """
    taken = model.inputs[0]
    dtype = taken.dtype if "float" in taken.dtype else None
    inputs = keras.Input(batch_shape=taken.shape, dtype=dtype, name=taken.name)
    kind = type(model) if isinstance(model, TakesPrecision) else keras.Model
    copy = cloned(model, call_layer=given(inputs, layer(inputs)), kind=kind, inputs=inputs)
    copy_weights(model, copy)
    return copy


def given(taken: Any, instead: Any, call_layer: CallLayer | None = None) -> CallLayer:
    """Returns what calls layers with one tensor where they would take another.

    Args:
        taken: the tensor that layers would take.
        instead: what they are given.
        call_layer: takes a layer and the arguments of its call; None to call it.
    """

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(
            lambda value: instead if value is taken else value, (args, kwargs)
        )
        return (call_layer or _called)(layer, *args, **kwargs)

    return call


def without(names: Collection[str]) -> CallLayer:
    """Returns what calls every layer but those named, which hand their inputs on.

    Args:
        names: names of layers.
    """

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in names else layer(*args, **kwargs)

    return call_layer


def free_name(wanted: str, taken: Collection[str]) -> str:
    """Returns a name that nothing has yet: the one wanted, or that with a number behind.

    Args:
        wanted: the name.
        taken: the names that are in use.
    """
    # That of an input need not be one that a graph takes.
    wanted = re.sub(UNFIT, "_", wanted)
    numbered = (f"{wanted}_{number}" for number in itertools.count(1))
    return wanted if wanted not in taken else next(n for n in numbered if n not in taken)


def _called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)
