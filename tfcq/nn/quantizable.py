"""Turns any functional or sequential Keras model into one whose calls take `precision`."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.batch_norm import FUSED
from tfcq.nn.cloning import UNFIT, cloned, free_name, same_layer
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.grids import link_grids
from tfcq.nn.kernels import holds_kernel, refuse_unknown_kernels
from tfcq.nn.layer_bits import check_overrides, known_names, opened
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import (
    Placement,
    fixed_bits,
    place,
    read_graph,
)
from tfcq.nn.precision import TakesPrecision
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.quantizer import Quantizer
from tfcq.settings.policies import FLOAT, LayerBits, Policy, policy_named


@keras.saving.register_keras_serializable("tfcq")
class QuantizableModel(TakesPrecision, keras.Model):
    """A functional model whose calls take `precision`; made by `tfcq.quantizable`.

    Args:
        inputs: symbolic inputs.
        outputs: symbolic outputs.
        name: name of the model.
        **kwargs: as for a functional `keras.Model`.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.accept_precision()
        link_grids(self)

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Returns the outputs, as Keras asks for.

        Args:
            inputs: as for a functional `keras.Model`.
            training: as for a functional `keras.Model`.
            mask: as for a functional `keras.Model`.
            **kwargs: `precision`, where it is handed down.
        """
        kwargs["precision"] = self.tell_outer(kwargs.get("precision"))
        return super().call(inputs, training=training, mask=mask, **kwargs)


def quantizable(
    model: keras.Model,
    policy: str | Policy = "paper",
    overrides: dict[str, str] | None = None,
    reads_images: bool = True,
) -> QuantizableModel:
    """Returns a copy of a model, weights included, whose calls take `precision`.

    `model(x, precision=tfcq.Precision(4, 8))` is a quantized pass; without `precision` the
    result equals the original's to the last bit.

    Args:
        model: a built functional or sequential model; nested ones are converted too.
        policy: a name in `tfcq.settings.policies.POLICIES`, such as `"paper"`, `"uniform"` or
            `"contrastive_quant"`, or a `tfcq.Policy`.
        overrides: fixed bits by pattern of layer names, for example
            `{"conv1": "8w8a", "top_*": "fp"}`; the first match wins.
        reads_images: False for a part that reads what another one computed, such as the head of a
            detector: then no layer is the first one, and what stands before its first kernel is
            quantized too.

    Raises:
        UserError: on a model that is not built from layers, a layer whose kernel cannot be
            quantized and that no override leaves in float, an override that matches nothing, or a
            setting of the policy that its kind of quantizer does not know.

    Example:

        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu")])
        >>> copy = tfcq.quantizable(model, "uniform", overrides={"dense*": "8w4a"})
        >>> inputs = np.ones((1, 8), "float32")
        >>> bool(np.all(copy(inputs) == model(inputs)))
        True
    """
    if isinstance(model, QuantizableModel):
        raise UserError(f"Model {model.name!r} is quantizable already; pass the float model.")
    policy = policy_named(policy)
    policy = dataclasses.replace(policy, overrides=(*(overrides or {}).items(), *policy.overrides))
    # Told even where the policy then quantizes nothing.
    _weight_quantizer(policy, None)
    _activation_quantizer(policy, None, signed=True)
    functional = _as_functional(model)
    check_names(model)
    policy = opened(policy, functional)
    check_overrides(policy, known_names(functional))
    refuse_unknown_kernels(functional, policy)
    copy = _convert(functional, policy, reads_images)
    _check_quantizes(copy, policy)
    copy_weights(model, copy)
    return copy


def _check_quantizes(model: QuantizableModel, policy: Policy) -> None:
    """Refuses a model in which no pass would quantize anything, unless that was asked for."""
    found = quantizers_of(model, "weight_quantizer") or quantizers_of(model, "quantizer")
    if not found and policy.default != LayerBits(FLOAT, FLOAT):
        kinds = ", ".join(kind.__name__ for kind in QUANTIZED_COUNTERPARTS)
        raise UserError(
            f"Model {model.name!r} holds nothing to quantize under policy {policy.name!r}; "
            f"allowed: a model with {kinds} that is not left in float by overrides."
        )


def check_graph(model: keras.Model) -> None:
    """Refuses a model whose layers and their order cannot be read.

    Args:
        model: the model.

    Raises:
        UserError: when it is neither a functional nor a built sequential model of Keras 3.
    """
    name = getattr(model, "name", "")
    if type(model).__module__.partition(".")[0] == "tf_keras":
        raise UserError(
            f"Model {name!r} was made by tf_keras (Keras 2); allowed: a Keras 3 model. Save its "
            "weights and load them into the same network made by keras."
        )
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise UserError(f"Sequential model {name!r} is not built; call build() first.")
    elif not {"layers", "input_layers", "output_layers"} <= set(
        model.get_config() if isinstance(model, keras.Model) else ()
    ):
        raise UserError(
            f"Received {type(model).__name__} {name!r}; allowed: a functional or sequential Keras "
            "model (keras.Model(inputs, outputs))."
        )


def check_names(model: keras.Model) -> None:
    """Refuses names that no graph of TensorFlow takes: inputs alone open no scope of theirs.

    Args:
        model: the outermost model.

    Raises:
        UserError: naming the first such layer or model, and a name near it.
    """
    # What is outside begins with none of these.
    outer = re.sub(r"^[^A-Za-z0-9.]", "m", model.name)
    for kind, name, near in (("Model", model.name, outer), *(
        (kind, name, name) for kind, name in _scopes(model)
    )):  # fmt: skip
        near = re.sub(UNFIT, "_", near)
        if near != name:
            raise UserError(
                f"{kind} {name!r} has a name that TensorFlow computes no graph of; allowed: "
                f"letters, digits and _.->, such as {near!r}."
            )


def _scopes(model: keras.Model) -> Iterator[tuple[str, str]]:
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Model):
            yield "Model", operation.name
            yield from _scopes(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            yield "Layer", operation.name


def _as_functional(model: keras.Model) -> keras.Model:
    """Returns the model as one with a graph in which each layer without weights is called once."""
    check_graph(model)
    if isinstance(model, keras.Sequential):
        # Built by a call, it would take batches of that size alone.
        taken = model.inputs[0]
        inputs = keras.Input(taken.shape[1:], dtype=taken.dtype, name=taken.name)
        functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        return _with_own_layers(functional, inputs)
    shared = any(len(layer["inbound_nodes"]) > 1 for layer in model.get_config()["layers"])
    return _with_own_layers(model) if shared else model


def _with_own_layers(model: keras.Model, inputs: Any = None) -> keras.Model:
    """Returns a model of the same layers, but for one of its own wherever one without weights is
    called, since each place has values of its own."""
    called: set[str] = set()

    def clone_layer(layer: Any) -> Any:
        return same_layer(_as_functional(layer) if isinstance(layer, keras.Model) else layer)

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in called and not getattr(layer, "weights", []):
            layer = same_layer(layer)
            layer.name = free_name(layer.name, called)
        called.add(layer.name)
        return layer(*args, **kwargs)

    return cloned(model, clone_layer, call_layer, inputs=inputs)


def _convert(model: keras.Model, policy: Policy, reads_images: bool) -> QuantizableModel:
    kernels = {layer.name for layer in model.layers if holds_kernel(layer)}
    placement = place(read_graph(model.get_config()), policy, reads_images, kernels)
    calls: dict[str, int] = {}
    names = {operation.name for operation in model.operations}

    def clone_layer(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _convert(_as_functional(layer), policy, layer.name in placement.first)
        return _clone_layer(layer, placement, policy)

    def call_layer(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if layer.name not in placement.outputs:
            return outputs
        calls[layer.name] = calls.get(layer.name, 0) + 1
        count = "" if calls[layer.name] == 1 else f"_{calls[layer.name]}"
        quantizer = _activation_quantizer(
            policy,
            fixed_bits(placement.outputs[layer.name]),
            signed=layer.name in placement.signed,
        )
        name = free_name(f"{layer.name}_quantizer{count}", names)
        names.add(name)
        return ActivationQuantizer(quantizer, name=name, dtype=_dtype_policy(layer))(outputs)

    return cloned(model, clone_layer, call_layer, QuantizableModel)


def _weight_quantizer(policy: Policy, bits: int | None) -> Quantizer:
    names = ("per_channel", "narrow_range", "rounding", "detach_scale")
    kind = WEIGHT_QUANTIZERS[policy.weight_quantizer]
    options = _options(policy, names, "weight_quantizer", WEIGHT_QUANTIZERS)
    return kind(bits=bits, **options)


def _activation_quantizer(policy: Policy, bits: int | None, signed: bool) -> Quantizer:
    kind = ACTIVATION_QUANTIZERS[policy.activation_quantizer]
    options = _options(policy, ("rounding",), "activation_quantizer", ACTIVATION_QUANTIZERS)
    if "signed" in inspect.signature(kind).parameters:
        options["signed"] = signed
    return kind(bits=bits, **options)


def _options(
    policy: Policy, names: tuple[str, ...], field: str, kinds: dict[str, type[Quantizer]]
) -> dict[str, Any]:
    """Returns the policy's settings that differ from their default, for a quantizer."""
    defaults = {f.name: f.default for f in dataclasses.fields(Policy)}
    options = {n: getattr(policy, n) for n in names if getattr(policy, n) != defaults[n]}
    chosen = getattr(policy, field)
    for option, value in options.items():
        able = [k for k, kind in kinds.items() if option in inspect.signature(kind).parameters]
        if chosen not in able:
            raise UserError(
                f"Policy {policy.name!r} sets {option}={value!r}, which {field} {chosen!r} cannot "
                f"use; allowed with {', '.join(able)}. Leave it at {defaults[option]!r}, or take "
                f"{able[0]!r}."
            )
    return options


def _dtype_policy(layer: Any) -> Any:
    # Operations such as `x + y` are nodes too, but have no dtype policy of their own.
    return getattr(layer, "dtype_policy", None)


def _clone_layer(layer: Any, placement: Placement, policy: Policy) -> Any:
    counterpart = QUANTIZED_COUNTERPARTS.get(type(layer))
    if counterpart is None or layer.name not in placement.kernels:
        return same_layer(layer, kind=FUSED.get(type(layer)))
    bits = fixed_bits(placement.kernels[layer.name])
    config = {**layer.get_config(), "weight_quantizer": _weight_quantizer(policy, bits)}
    return same_layer(layer, config, counterpart)


def quantizers_of(model: keras.Model, attribute: str) -> dict[str, Quantizer]:
    """Returns the quantizer of every layer that has one, those of nested models included.

    Args:
        model: the model.
        attribute: where a layer keeps its quantizer: `"weight_quantizer"` or `"quantizer"` (of
            activations).

    Returns:
        From the layer's name, behind those of the models around it and slashes, to its quantizer.
    """
    found: dict[str, Quantizer] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            inner = quantizers_of(layer, attribute)
            found |= {f"{layer.name}/{name}": quantizer for name, quantizer in inner.items()}
        elif isinstance(getattr(layer, attribute, None), Quantizer):
            found[layer.name] = getattr(layer, attribute)
    return found
