"""The integer form of a network: a quantizable model that computes what its int8 file computes."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfcq.errors import UserError
from tfcq.integer.folded import Folded, folded
from tfcq.integer.layers import ChannelAffine
from tfcq.integer.operations import FLOAT_LAYER, refuse_foreign, takes_grid_of_input
from tfcq.integer.replay import output_names
from tfcq.integer.stored import holder_of_grid, is_stored, stored_quantizer
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.activation_ranges import held_range, is_trained_quantized, mark_trained
from tfcq.nn.cloning import cloned, free_name, given, same_layer
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.layer_bits import check_overrides, known_names, opened
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS, QuantizedDense
from tfcq.nn.placement import KERNEL_CLASSES, fixed_bits, place, read_graph
from tfcq.nn.quantizable import QuantizableModel, check_graph, check_names, quantizers_of
from tfcq.quantization.integer import IntegerActivationQuantizer
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer
from tfcq.quantization.stored_scale import StoredScaleWeightQuantizer
from tfcq.settings.bitwidths import LOWEST_BITS
from tfcq.settings.policies import DRAWN, FLOAT, INT8, Policy, parse_layer_bits

_BITS = 8
_WEIGHTS = (MinMaxWeightQuantizer, StoredScaleWeightQuantizer)


def deployable(
    model: keras.Model,
    policy: Policy = INT8,
    overrides: dict[str, str] | None = None,
    reads_images: bool = True,
) -> QuantizableModel:
    """Returns the integer form of a network, which its int8 file equals step by step.

    Its float pass is the model's. In a quantized pass every tensor that a runtime stores is on its
    grid, images and outputs included, batch norms are part of the kernels before them, and biases
    are whole multiples of the scales of input and weights. It is calibrated, scored and trained as
    any quantizable model; `tfcq.int8_tflite` writes it.

    Args:
        model: a functional or sequential model of images in [0, 1]; a quantizable one keeps the
            bits, the stored scales and the ranges of its quantizers.
        policy: bits of layers, where the model is a float one; layers that it leaves in float by
            name, `"fp"`, are computed in float between integers.
        overrides: bits by pattern of layer names, as for `tfcq.quantizable`; of a quantizable model
            `"fp"` alone.
        reads_images: False for a part that reads what another one computed: its inputs have a range
            that calibration finds, and its file takes floats.

    Raises:
        UserError: on a layer that int8 runtimes do not have, or quantizers whose grids they cannot
            reproduce.

    Example:

        >>> network = tfcq.deployable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> images = np.linspace(0, 1, 4 * 64, dtype="float32").reshape(4, 8, 8, 1)
        >>> tfcq.calibrate(network, images)
        >>> network(images, precision=tfcq.Precision(4, 8)).shape
        TensorShape([4, 8])
    """
    if isinstance(model, QuantizableModel):
        check_grids(model)
        _check_kept(model, overrides or {})
    policy = dataclasses.replace(policy, overrides=(*(overrides or {}).items(), *policy.overrides))
    check_graph(model)
    check_names(model)
    policy = opened(policy, model)
    plain = folded(model, policy)
    nodes = read_graph(plain.model.get_config()).values()
    # Kernels are known by the name of the layer that they are of.
    kernels = {name for name, layer in plain.kernels.items() if name != layer.name}
    made = [n.name for n in nodes if n.kind != "InputLayer" and n.name not in kernels]
    # A misspelt name is why a layer is refused.
    check_overrides(policy, [*known_names(model), *made])
    refuse_foreign(plain.model, plain.origins, plain.floats)
    bits = _bits_of_kernels(plain, model, policy, reads_images)
    form, held = _quantized(plain, bits, reads_images)
    mark_trained(form, is_trained_quantized(model))
    for name, layer in held.items():
        form.get_layer(name).set_range(*held_range(layer))
    return form


def with_dense(form: QuantizableModel, kernel: np.ndarray, bias: np.ndarray) -> QuantizableModel:
    """Returns an integer form with a dense layer of 8-bit weights behind, uncalibrated there.

    Args:
        form: the integer form of a network with one output, features [batch, width].
        kernel: float [width, classes].
        bias: float [classes].
    """
    names = [layer.name for layer in form.layers]
    dense = QuantizedDense(
        len(bias), weight_quantizer=MinMaxWeightQuantizer(_BITS, narrow_range=True),
        integer_bias=True, name=free_name("classifier", names), dtype="float32",
    )  # fmt: skip
    stored = ActivationQuantizer(
        IntegerActivationQuantizer(_BITS), name=free_name("classifier_quantizer", names),
        dtype="float32",
    )  # fmt: skip
    model = QuantizableModel(form.inputs[0], stored(dense(form.outputs[0])), name=form.name)
    dense.set_weights([kernel, bias])
    return model


def is_form(model: keras.Model) -> bool:
    """Whether a model is an integer form already.

    Args:
        model: the model.
    """
    quantizers = quantizers_of(model, "quantizer").values()
    return bool(quantizers) and all(isinstance(q, IntegerActivationQuantizer) for q in quantizers)


def told_refusal(model: keras.Model, policy: Policy = INT8) -> str:
    """Returns what keeps a network from its integer form, in one line; empty where nothing does.

    Args:
        model: as for `deployable`.
        policy: as for `deployable`.
    """
    try:
        check_graph(model)
        plain = folded(model, opened(policy, model))
        refuse_foreign(plain.model, plain.origins, plain.floats)
    except UserError as error:
        return str(error)
    return ""


def check_grids(model: QuantizableModel) -> None:
    """Refuses quantizers whose grids are not those that an int8 runtime computes on.

    Args:
        model: a quantizable model.

    Raises:
        UserError: naming the layer and the way out.
    """
    weights = quantizers_of(model, "weight_quantizer")
    for name, quantizer in (weights | quantizers_of(model, "quantizer")).items():
        if not isinstance(quantizer, (*_WEIGHTS, MinMaxActivationQuantizer)):
            raise UserError(
                f"Layer {name!r} is quantized by {type(quantizer).__name__}, which int8 "
                "cannot reproduce; allowed: 'minmax'. tfcq.requantizable(model, 'int8') makes such "
                "a model from the same weights (tfcq.export: --policy=int8)."
            )
        _check_rounding(f"Layer {name!r}", getattr(quantizer, "rounding", "nearest"))
        fits = range(LOWEST_BITS if name in weights else _BITS, _BITS + 1)
        if (quantizer.bits or _BITS) not in fits:
            raise UserError(
                f"Layer {name!r} is quantized to {quantizer.bits} bits; allowed in int8: weights "
                f"of {LOWEST_BITS} to {_BITS} bits and activations of {_BITS}, as by "
                f"--layer_bits=PATTERN:4w{_BITS}a. tfcq.requantizable(model, 'int8') makes such a "
                "model from the same weights."
            )


def _check_rounding(whose: str, rounding: str) -> None:
    """Refuses another rounding than that of int8 runtimes.

    Raises:
        UserError: naming who asks for it.
    """
    if rounding != "nearest":
        raise UserError(
            f"{whose} is quantized with rounding {rounding!r}; allowed in int8: 'nearest', as "
            "policy 'int8' has it; tfcq.requantizable(model, 'int8') keeps the weights."
        )


def _check_kept(model: QuantizableModel, overrides: dict[str, str]) -> None:
    """Refuses bits for a model whose quantizers have theirs.

    Raises:
        UserError: naming the first.
    """
    for pattern, bits in overrides.items():
        if parse_layer_bits(bits).weights != FLOAT:
            raise UserError(
                f"Layer bits {pattern}:{bits} for quantizable model {model.name!r}, which keeps "
                f"its own bits; allowed: {pattern}:fp, or the float model, tfcq.float_model(model)."
            )


def _bits_of_kernels(
    plain: Folded, model: keras.Model, policy: Policy, reads_images: bool
) -> dict[str, int | None]:
    """Returns the bits of each kernel of a float model, None for those of the pass."""
    if isinstance(model, QuantizableModel):
        return {}
    _check_rounding(f"Model {model.name!r}", policy.rounding)
    _check_held(policy)
    nodes = read_graph(plain.model.get_config())
    for name, node in nodes.items():
        if node.kind in KERNEL_CLASSES and name not in {*plain.kernels, *plain.floats}:
            # Constants in front of the first kernel are none.
            node.kind = ChannelAffine.__name__
    # A layer that is called twice, or separable, is two here, with the bits of the one.
    known_as = {name: layer.name for name, layer in plain.kernels.items()}
    kernels = place(nodes, policy, reads_images, known_as=known_as).kernels
    return {name: fixed_bits(bits) for name, bits in kernels.items()}


def _check_held(policy: Policy) -> None:
    """Refuses bits that no int8 file holds.

    Raises:
        UserError: naming the first.
    """
    for pattern, bits in policy.overrides:
        asked = parse_layer_bits(bits)
        wide = isinstance(asked.weights, int) and asked.weights > _BITS
        if wide or asked.activations not in (_BITS, DRAWN, FLOAT):
            raise UserError(
                f"Layer bits {pattern}:{bits} under policy int8, whose files hold weights of "
                f"{LOWEST_BITS} to {_BITS} bits and activations of {_BITS}; allowed: {pattern}:fp, "
                f"or as {pattern}:4w{_BITS}a."
            )


def _quantized(
    plain: Folded, bits: dict[str, int | None], reads_images: bool
) -> tuple[QuantizableModel, dict[str, ActivationQuantizer]]:
    """Returns the plain model with quantizers of weights and of everything that is stored.

    Beside it those of the original by the names of the new ones that have their place.
    """
    model = plain.model
    nodes = read_graph(model.get_config())
    for name in plain.floats:
        nodes[name].kind = FLOAT_LAYER
    outputs = set(output_names(model))
    names = {operation.name for operation in model.operations}
    behind: dict[str, str] = {}
    held: dict[str, ActivationQuantizer] = {}

    def clone_layer(layer: Any) -> Any:
        kind = QUANTIZED_COUNTERPARTS.get(type(layer))
        if kind is None or layer.name in plain.floats:
            return same_layer(layer)
        quantizer = _weight_quantizer(plain.kernels.get(layer.name), bits.get(layer.name, _BITS))
        config = {"weight_quantizer": quantizer, "integer_bias": layer.bias is not None}
        return same_layer(layer, {**layer.get_config(), **config}, kind)

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        values = layer(*args, **kwargs)
        if not (is_stored(nodes, layer.name, outputs) and _is_real(values)):
            return values
        quantizer = stored_quantizer(nodes, layer.name, outputs)
        name = free_name(f"{plain.origins.get(layer.name, layer.name)}_quantizer", names)
        names.add(name)
        follows = None
        if takes_grid_of_input(nodes[layer.name].kind):
            follows = behind[holder_of_grid(nodes, nodes[layer.name].producers[0])]
        behind[layer.name] = name
        if layer.name in plain.quantizers:
            held[name] = plain.quantizers[layer.name]
        return ActivationQuantizer(quantizer, follows, name=name, dtype="float32")(values)

    source = model.inputs[0]
    images = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
    first = free_name(f"{source.name}_quantizer", names)
    names.add(first)
    behind[source.name] = first
    known = (0.0, 1.0) if reads_images else ()
    grid = ActivationQuantizer(
        IntegerActivationQuantizer(_BITS, *known), name=first, dtype="float32"
    )
    on_grid = given(images, grid(images), call_layer)
    form = cloned(model, clone_layer, on_grid, QuantizableModel, inputs=images)
    for layer in form.layers:
        if layer.weights and not isinstance(layer, ActivationQuantizer):
            _give(layer, model.get_layer(layer.name).get_weights(), plain)
    return form, held


def _give(layer: Any, weights: list[np.ndarray], plain: Folded) -> None:
    """Sets the weights of a layer, and the scale that its kernel was stored with."""
    if getattr(layer, "learned_scale", None) is not None:
        factor = plain.factors.get(layer.name, np.ones(()))
        scale = np.asarray(plain.kernels[layer.name].learned_scale, np.float64)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        shape = scale.shape[2:] if depthwise and scale.ndim == 4 else (-1,)
        weights = [*weights, scale * np.abs(factor).reshape(shape if factor.ndim else ())]
    give_weights(layer, weights)


def _weight_quantizer(original: Any, bits: int | None) -> Any:
    """Returns the quantizer of a kernel: the original's, without the level that int8 has not."""
    given = getattr(original, "weight_quantizer", None)
    if isinstance(given, StoredScaleWeightQuantizer):
        return StoredScaleWeightQuantizer(
            given.bits or _BITS, given.per_channel, given.narrow_range
        )
    if given is None:
        return MinMaxWeightQuantizer(bits, narrow_range=True)
    config = {**given.get_config(), "narrow_range": True}
    return MinMaxWeightQuantizer(**config)


def _is_real(values: Any) -> bool:
    """Whether a tensor holds numbers that a grid is for, not truths or places."""
    return all("float" in tensor.dtype for tensor in keras.tree.flatten(values))
