"""Bits for each layer: how much each layer minds, and the best use of a size budget."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.calibration import check_quantizable
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import kernel_layers, run
from tfcq.post_training.observation import check_images
from tfcq.post_training.weights import check_weight_quantizer
from tfcq.settings.bitwidths import check_bits

Sensitivities = dict[str, dict[int, float]]


def kernel_sizes(model: keras.Model) -> dict[str, int]:
    """Returns the number of elements of each quantized kernel, by layer name.

    Args:
        model: a quantizable model.

    Raises:
        UserError: on a float model, or two layers of one name.
    """
    check_quantizable(model)
    sizes: dict[str, int] = {}
    for layer in kernel_layers(model):
        if layer.name in sizes:
            raise UserError(
                f"Two layers of model {model.name!r} are named {layer.name!r}; allowed: names of "
                "their own, since overrides go by name."
            )
        sizes[layer.name] = int(np.prod(layer.kernel.shape))
    return sizes


def scan_sensitivities(
    model: QuantizableModel,
    images: np.ndarray,
    candidates: Sequence[int] = (2, 3, 4, 6, 8),
    batch_size: int = 256,
) -> Sensitivities:
    """Returns how far the outputs move when one layer's weights alone are quantized.

        sensitivity = sum |f_layer@bits(x) - f(x)|^2 / sum |f(x)|^2

    over all images, activations float (one layer at a time as in Nagel et al. 2021, Sec. 3.7).
    Weights are rounded as the layer's own quantizer does, with these bits in place of fixed ones.

    Args:
        model: a quantizable model with min-max weight quantizers; left as it was.
        images: float array [count, height, width, channels].
        candidates: the bits to try.
        batch_size: images per pass.

    Returns:
        The sensitivity by layer name and bits.

    Raises:
        UserError: on a float model, other weight quantizers, bits outside 2 to 16 or named twice,
            two layers of one name, no image, or images with NaN or infinity.
    """
    sizes = kernel_sizes(model)
    candidates = _checked_candidates(candidates)
    check_images(images, batch_size)
    layers = list(kernel_layers(model))
    for layer in layers:
        check_weight_quantizer(layer)
    expected = run(model, images, None, batch_size).astype(np.float64)
    whole = max(np.sum(expected**2), 1e-30)
    found: Sensitivities = {name: {} for name in sizes}
    for layer in layers:
        kernel = layer.kernel.numpy()
        try:
            for bits in candidates:
                layer.kernel.assign(_rounded(layer, kernel, bits))
                outputs = run(model, images, None, batch_size)
                found[layer.name][bits] = float(np.sum((outputs - expected) ** 2) / whole)
        finally:
            layer.kernel.assign(kernel)
    return found


def _rounded(layer: keras.layers.Layer, kernel: np.ndarray, bits: int) -> tf.Tensor:
    quantizer = layer.weight_quantizer
    config: dict[str, Any] = {**quantizer.get_config(), "bits": bits}
    return type(quantizer).from_config(config)(tf.constant(kernel), bits, layer.kernel_axes)


def _checked_candidates(candidates: Sequence[int]) -> list[int]:
    ordered = sorted(candidates)
    if not ordered or len(set(ordered)) < len(ordered):
        raise UserError(
            f"Candidate bits {tuple(candidates)} cannot be used; allowed: at least one, each once."
        )
    for bits in ordered:
        check_bits(bits)
    return ordered


def allocate(
    sensitivities: Mapping[str, Mapping[int, float]],
    sizes: Mapping[str, int],
    budget_bits: int,
) -> dict[str, int]:
    """Returns weight bits for each layer within a budget of weight bits.

    Greedy: all layers start at their fewest bits; then, again and again, the layer and step up to
    more bits with the largest drop in sensitivity per bit of size is taken, of those that still fit
    and lower it, the first on equal terms. This is the best allocation where sensitivities fall
    convexly and the budget is used up exactly; sensitivities of several layers are taken to add up.

    Args:
        sensitivities: by layer name and bits, from `scan_sensitivities`.
        sizes: number of weights by layer name, from `kernel_sizes`.
        budget_bits: the largest sum over layers of bits times size.

    Returns:
        Bits by layer name, such as `{"stem": 8, "classifier": 4}`: what `with_stored_scales` takes.

    Raises:
        UserError: when names differ, a layer has no candidate, bits are outside 2 to 16, or the
            budget is less than the fewest bits take.
    """
    if set(sensitivities) != set(sizes):
        odd = sorted(set(sensitivities) ^ set(sizes))[0]
        raise UserError(
            f"Layer {odd!r} stands in one of sensitivities and sizes; allowed: the same layers in "
            "both."
        )
    candidates = {name: _checked_candidates(list(table)) for name, table in sensitivities.items()}
    chosen = {name: choices[0] for name, choices in candidates.items()}
    left = budget_bits - sum(bits * sizes[name] for name, bits in chosen.items())
    if left < 0:
        raise UserError(
            f"A budget of {budget_bits} bits cannot be met; allowed: {budget_bits - left} and "
            f"above, which all layers take at their fewest bits. The nearest is "
            f"{budget_bits - left}."
        )
    while True:
        best, most = None, 0.0
        for name, choices in candidates.items():
            for bits in choices:
                cost = (bits - chosen[name]) * sizes[name]
                if 0 < cost <= left:
                    drop = sensitivities[name][chosen[name]] - sensitivities[name][bits]
                    if drop / cost > most:
                        best, most = (name, bits, cost), drop / cost
        if best is None:
            break
        name, bits, cost = best
        chosen[name] = bits
        left -= cost
    return chosen
