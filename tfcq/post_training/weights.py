"""Weight scales found once, and a copy of a model that keeps them."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import check_quantizable
from tfcq.nn.cloning import cloned, same_layer, without
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import kernel_layers
from tfcq.quantization import ops
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.stored_scale import StoredScaleWeightQuantizer, stored_scale
from tfcq.settings.bitwidths import check_bits

# Shares of the scale that covers the largest magnitude. That one leaves half a step uncovered at
# the positive end, so that more than all of it can be best at few bits.
_SHARES = np.linspace(0.05, 1.25, 121)


def mse_scale(
    weights: tf.Tensor, bits: int, axes: list[int] | None, narrow_range: bool = False
) -> tf.Tensor:
    """Returns the symmetric scale with the least squared error of rounding.

        min over share of    sum of (w - round to grid of (share * symmetric scale)(w))^2

    (Nagel et al. 2021, "A White Paper on Neural Network Quantization", Sec. 3.1.) Shares of
    `ops.symmetric_scale` from 0.05 to 1.25 in steps of 0.01 are tried, and the share 1 first, so
    the result is never worse.

    Args:
        weights: float tensor.
        bits: bits of the weights.
        axes: axes that share a scale; None for all (per tensor).
        narrow_range: whether the most negative level is left out.

    Returns:
        A float32 or float64 tensor that broadcasts against the weights.

    Raises:
        UserError: when bits are outside 2 to 16.
        tf.errors.InvalidArgumentError: when the weights hold NaN or infinity.
    """
    check_bits(bits)
    weights = tf.cast(weights, ops.arithmetic_dtype(weights.dtype))
    whole = ops.symmetric_scale(weights, bits, axes, narrow_range)
    lowest, highest = ops.symmetric_levels(bits, narrow_range, whole.dtype)

    def error(scale: tf.Tensor) -> tf.Tensor:
        rounded = ops.fake_quantize(weights, scale, tf.zeros((), scale.dtype), lowest, highest)
        squared = tf.square(tf.cast(rounded - weights, tf.float64))
        return tf.reduce_sum(squared, axis=axes, keepdims=axes is not None)

    best, least = whole, error(whole)
    for share in _SHARES:
        scale = whole * tf.cast(share, whole.dtype)
        found = error(scale)
        better = found < least
        best, least = tf.where(better, scale, best), tf.where(better, found, least)
    return best


WEIGHT_SCALES: dict[str, Callable[..., tf.Tensor]] = {
    "max": ops.symmetric_scale,
    "mse": mse_scale,
}


def with_stored_scales(
    model: QuantizableModel,
    weight_bits: int | Mapping[str, int],
    scales: str = "mse",
    activations: bool = True,
) -> QuantizableModel:
    """Returns a copy whose weights are quantized with scales that are found now and kept.

    Every quantized pass of the copy rounds weights at these bits, whatever weight bits the pass
    names; layers with fixed bits keep theirs. It saves and loads as any `.keras` file. Recorded
    activation ranges are copied.

    Args:
        model: a quantizable model with min-max weight quantizers that round to the nearest.
        weight_bits: bits of the weights; or of each layer, by its name, fixed bits included.
        scales: `"mse"` (`mse_scale`), or `"max"`, the scales of the model itself.
        activations: whether activations are quantized in the copy; False to study weights alone.

    Raises:
        UserError: on a float model, other weight quantizers, another rounding, unknown scales,
            bits outside 2 to 16, or bits of other layers than the model's.
    """
    check_quantizable(model)
    bits_of = _bits_by_layer(model, weight_bits)
    if scales not in WEIGHT_SCALES:
        raise unknown_choice("weight scale", scales, WEIGHT_SCALES)
    for layer in kernel_layers(model):
        check_weight_quantizer(layer)
    copy = _clone(model, bits_of, activations)
    copy_weights(model, copy)
    for layer in kernel_layers(copy):
        quantizer = layer.weight_quantizer
        axes = layer.kernel_axes if quantizer.per_channel else None
        kernel = tf.convert_to_tensor(layer.kernel)
        stored_scale(layer).assign(
            WEIGHT_SCALES[scales](kernel, quantizer.bits, axes, quantizer.narrow_range)
        )
    return copy


def check_weight_quantizer(layer: keras.layers.Layer) -> None:
    """Refuses a layer whose weights have no scale to find.

    Args:
        layer: a layer with a quantized kernel.

    Raises:
        UserError: when its quantizer is not min-max, or does not round to the nearest.
    """
    quantizer = layer.weight_quantizer
    if not isinstance(quantizer, MinMaxWeightQuantizer):
        raise UserError(
            f"Layer {layer.name!r} is quantized by {type(quantizer).__name__}, which has scales "
            "of its own; allowed: 'minmax'. tfcq.requantizable(model, 'paper') makes such a model "
            "from the same weights, --policy=paper on the command line."
        )
    if quantizer.rounding != "nearest":
        raise UserError(
            f"Layer {layer.name!r} rounds {quantizer.rounding!r}; allowed here: 'nearest'."
        )


def _bits_by_layer(
    model: QuantizableModel, weight_bits: int | Mapping[str, int]
) -> Mapping[str, int]:
    layers = {layer.name: layer for layer in kernel_layers(model)}
    if not isinstance(weight_bits, Mapping):
        check_bits(weight_bits)
        return {n: layer.weight_quantizer.chosen_bits(weight_bits) for n, layer in layers.items()}
    for bits in weight_bits.values():
        check_bits(bits)
    for name in sorted(set(layers) ^ set(weight_bits)):
        raise UserError(
            f"Layer {name!r} stands in one of the model and the bits by layer; allowed: bits of "
            "every layer with a kernel, and of no other."
        )
    return weight_bits


def _clone(
    model: keras.Model, weight_bits: Mapping[str, int], activations: bool
) -> QuantizableModel:
    def clone_layer(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _clone(layer, weight_bits, activations)
        config = layer.get_config()
        quantizer = getattr(layer, "weight_quantizer", None)
        if quantizer is not None:
            config["weight_quantizer"] = StoredScaleWeightQuantizer(
                weight_bits[layer.name], quantizer.per_channel, quantizer.narrow_range
            )
        return same_layer(layer, config)

    quantizers = {layer.name for layer in model.layers if isinstance(layer, ActivationQuantizer)}
    dropped = set() if activations else quantizers
    return cloned(model, clone_layer, without(dropped), QuantizableModel)
