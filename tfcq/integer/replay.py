"""A functional model called again, operation by operation, with other ones in their place."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

Call = Callable[[Any, tuple, dict], Any]


def replayed(model: keras.Model, inputs: Any, call: Call) -> Any:
    """Calls every operation of a functional model again, in its order.

    Args:
        model: the model.
        inputs: what takes the place of its inputs, in their structure.
        call: takes an operation and the arguments of a call, and returns its outputs.
    """
    # Keras's configuration miscounts the calls of a nested model where it names outputs.
    ends = [layers.Identity(name=f"@output {n}") for n in range(len(model.outputs))]
    outer = keras.Model(
        model.inputs, [end(output) for end, output in zip(ends, model.outputs, strict=True)]
    )
    config = outer.get_config()
    operations = {operation.name: operation for operation in outer.operations}
    tensors: dict[tuple[Any, ...], Any] = {}
    given = zip(_places(config["input_layers"]), keras.tree.flatten(inputs), strict=True)
    tensors.update(given)
    waiting = [
        (layer["name"], index, node)
        for layer in config["layers"]
        for index, node in enumerate(layer["inbound_nodes"])
    ]
    while waiting:
        ready = [one for one in waiting if _sources(one[2]) <= tensors.keys()]
        for name, index, node in ready:
            args, kwargs = _arguments(node, tensors)
            end = operations[name] in ends
            outputs = args[0] if end else call(operations[name], args, kwargs)
            for place, tensor in enumerate(keras.tree.flatten(outputs)):
                tensors[name, index, place] = tensor
        waiting = [one for one in waiting if one not in ready]
    return keras.tree.pack_sequence_as(model.output, [tensors[end.name, 0, 0] for end in ends])


def output_names(model: keras.Model) -> list[str]:
    """Returns the operation of each output of a model, in the order of the outputs.

    Args:
        model: a functional model that calls each operation once.
    """
    makers = {
        id(tensor): operation.name
        for operation in model.operations
        for tensor in keras.tree.flatten(operation.output)
    }
    return [makers[id(output)] for output in keras.tree.flatten(model.output)]


def _places(described: Any) -> list[tuple[Any, ...]]:
    """Returns the places (layer, call, output) that a model's configuration names."""
    if isinstance(described, dict):
        return [place for key in sorted(described) for place in _places(described[key])]
    if described and isinstance(described[0], str):
        return [tuple(described)]
    return [place for one in described for place in _places(one)]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _sources(value: Any) -> set[tuple[Any, ...]]:
    if _is_tensor(value):
        return {tuple(value["config"]["keras_history"])}
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list, tuple)):
        return {source for one in inner for source in _sources(one)}
    return set()


def _arguments(node: dict[str, Any], tensors: dict[tuple[Any, ...], Any]) -> tuple[tuple, dict]:
    """Returns the arguments of a call, its tensors among them."""
    held: dict[str, Any] = {}

    def marked(value: Any) -> Any:
        if _is_tensor(value):
            mark = f"@tensor {len(held)}"
            held[mark] = tensors[tuple(value["config"]["keras_history"])]
            return mark
        if isinstance(value, dict):
            return {key: marked(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [marked(one) for one in value]
        return value

    args, kwargs = (
        keras.saving.deserialize_keras_object(marked(node[name])) for name in ("args", "kwargs")
    )
    return keras.tree.map_structure(
        lambda value: held.get(value, value) if isinstance(value, str) else value,
        (tuple(args), dict(kwargs)),
    )
