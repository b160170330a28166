"""Turns any functional or sequential Keras model into one whose calls take `precision`."""

import dataclasses
import fnmatch
import inspect
import os
import zipfile
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn import attention  # noqa: F401 - registers its layers for `load`
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import cloned
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import (
    Placement,
    check_overrides,
    fixed_bits,
    holds_no_kernel,
    place,
    read_graph,
)
from tfcq.nn.precision import accept_precision
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.quantizer import Quantizer
from tfcq.settings.policies import Policy, parse_layer_bits, policy_named


@keras.saving.register_keras_serializable("tfcq")
class QuantizableModel(keras.Model):
    """A functional model whose calls take `precision`; made by `tfcq.quantizable`.

    Args:
        inputs: symbolic inputs.
        outputs: symbolic outputs.
        name: name of the model.
        **kwargs: as for a functional `keras.Model`.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        accept_precision(self)


def quantizable(
    model: keras.Model,
    policy: str | Policy = "paper",
    overrides: dict[str, str] | None = None,
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
    model = _as_functional(model)
    check_overrides(policy, _layer_names(model))
    copy = _convert(model, policy, reads_images=True)
    copy_weights(model, copy)
    return copy


def _as_functional(model: keras.Model) -> keras.Model:
    """Returns the model as one with a graph that can be read."""
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise UserError(f"Sequential model {model.name!r} is not built; call build() first.")
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    config = model.get_config() if isinstance(model, keras.Model) else {}
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        raise UserError(
            f"Received {type(model).__name__} {getattr(model, 'name', '')!r}; allowed: a "
            "functional or sequential Keras model (keras.Model(inputs, outputs))."
        )
    return model


def _layer_names(model: keras.Model) -> list[str]:
    names: list[str] = []
    for layer in model.layers:
        names += _layer_names(layer) if isinstance(layer, keras.Model) else [layer.name]
    return names


def _convert(model: keras.Model, policy: Policy, reads_images: bool) -> QuantizableModel:
    placement = place(read_graph(model.get_config()), policy, reads_images)
    calls: dict[str, int] = {}

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
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
        name = f"{layer.name}_quantizer{count}"
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


def _clone_layer(
    layer: keras.layers.Layer, placement: Placement, policy: Policy
) -> keras.layers.Layer:
    config = layer.get_config()
    if layer.name in placement.kernels and type(layer) in QUANTIZED_COUNTERPARTS:
        bits = fixed_bits(placement.kernels[layer.name])
        config["weight_quantizer"] = _weight_quantizer(policy, bits)
        return QUANTIZED_COUNTERPARTS[type(layer)].from_config(config)
    if type(layer) not in QUANTIZED_COUNTERPARTS:
        _refuse_unknown_kernel(layer, policy)
    return type(layer).from_config(config)


def _refuse_unknown_kernel(layer: keras.layers.Layer, policy: Policy) -> None:
    """Raises for a layer that would silently stay in float although it holds a kernel."""
    if holds_no_kernel(type(layer).__name__):
        return
    # Frozen kernels too: `trainable_weights` would miss them.
    kernels = [w for w in getattr(layer, "weights", []) if len(w.shape) >= 2]
    left_in_float = any(
        fnmatch.fnmatchcase(layer.name, pattern) and parse_layer_bits(bits).weights == "float"
        for pattern, bits in policy.overrides
    )
    if kernels and not left_in_float:
        allowed = ", ".join(kind.__name__ for kind in QUANTIZED_COUNTERPARTS)
        raise UserError(
            f"Layer {layer.name!r} ({type(layer).__name__}) holds a kernel that cannot be "
            f"quantized; allowed: {allowed}. To leave it in float, pass "
            f"overrides={{{layer.name!r}: 'fp'}} (--layer_bits={layer.name}:fp)."
        )


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


def load(path: str | os.PathLike) -> keras.Model:
    """Returns a quantizable model saved with `model.save("name.keras")`.

    Args:
        path: the file.

    Raises:
        UserError: when it cannot be read.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> encoder.save("encoder.keras")
        >>> tfcq.load("encoder.keras").output_shape
        (None, 8)
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist; allowed: a .keras file.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} cannot be read as a Keras model: it is not whole.")
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} cannot be read as a Keras model: {reason}") from None
