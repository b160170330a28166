"""Whose ranges a model's activation quantizers hold: float passes', or quantized ones'.

A network that was trained with each tensor quantized over its own range (Contrastive Quant, Eq. 9;
few labels; quantization-aware training) never saw the ranges of a float pass, which can be many
times larger.
"""

from collections.abc import Iterator

import keras

from tfcq.nn.activation_quantizer import FLOAT_PASS, ActivationQuantizer
from tfcq.settings.bitwidths import BitWidth

Ranges = list[tuple[ActivationQuantizer, float, float]]


def activation_layers(model: keras.Model) -> Iterator[tuple[str, ActivationQuantizer]]:
    """Yields name and layer of every activation quantizer, those of nested models included.

    Args:
        model: the model.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            for name, inner in activation_layers(layer):
                yield f"{layer.name}/{name}", inner
        elif isinstance(layer, ActivationQuantizer):
            yield layer.name, layer


def is_trained_quantized(model: keras.Model) -> bool:
    """Whether training quantized tensors over their own ranges, so that float ones do not fit.

    Args:
        model: the model.
    """
    return any(int(layer.trained_quantized.numpy()) for _, layer in activation_layers(model))


def takes_ranges(model: keras.Model) -> bool:
    """Whether any quantizer needs a range, rather than a scale that it learns or knows.

    Args:
        model: the model.
    """
    return any(layer.quantizer.takes_range for _, layer in activation_layers(model))


def mark_trained(model: keras.Model, quantized: bool) -> None:
    """Notes how a model is trained; what was recorded before counts no longer.

    Args:
        model: the model.
        quantized: whether training quantizes each tensor over its own range.
    """
    for _, layer in activation_layers(model):
        layer.range_bits.assign(FLOAT_PASS)
        layer.trained_quantized.assign(int(quantized))


def ranges_at(model: keras.Model, bits: BitWidth) -> Ranges:
    """Returns quantizers and their ranges as quantized passes at a bit-width recorded them.

    Args:
        model: the model.
        bits: the bit-width, not float.
    """
    return [
        (layer, float(layer.minimum.numpy()), float(layer.maximum.numpy()))
        for _, layer in activation_layers(model)
        if _bits(layer) == (bits.weights, bits.activations)
    ]


def trained_bits(model: keras.Model) -> BitWidth | None:
    """Returns the bit-width whose ranges a model holds that was trained so; None where it has none.

    Args:
        model: the model.
    """
    known = {_bits(layer) for _, layer in activation_layers(model)} - {FLOAT_PASS}
    known = known if is_trained_quantized(model) else set()
    return BitWidth(*known.pop()) if len(known) == 1 else None


def keep_ranges(source: keras.Model, target: keras.Model) -> None:
    """Gives a model quantized by another policy the ranges of quantizers that both have.

    Those that `target` alone has are marked as trained quantized if `source` was.

    Args:
        source: the model whose ranges are kept.
        target: the model that receives them.
    """
    held = dict(activation_layers(source))
    mark_trained(target, is_trained_quantized(source))
    for name, layer in activation_layers(target):
        if name in held:
            layer.set_range(*held_range(held[name]))


def held_range(layer: ActivationQuantizer) -> tuple[float, float, tuple[int, int]]:
    """Returns the range of a quantizer and whose it is, as `set_range` takes them.

    Args:
        layer: the quantizer.
    """
    return float(layer.minimum.numpy()), float(layer.maximum.numpy()), _bits(layer)


def _bits(layer: ActivationQuantizer) -> tuple[int, int]:
    weights, activations = layer.range_bits.numpy().tolist()
    return weights, activations
