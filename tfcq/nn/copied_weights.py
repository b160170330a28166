"""Weights from one model to another that was cloned from it."""

from collections.abc import Sequence

import keras
import numpy as np

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of layers by their names; activation quantizers may be on one side alone.

    Learned and stored scales stand behind a layer's own weights: where one side has them and the
    other has not, they are left as they are. Nested models are copied alike.

    Args:
        source: the model whose weights are copied.
        target: the model that receives them.

    Raises:
        UserError: when another layer with weights is on one side alone.
    """
    originals, copies = _layers(source), _layers(target)
    for name in sorted(originals.keys() ^ copies.keys()):
        layer = originals[name] if name in originals else copies[name]
        if layer.weights and not isinstance(layer, ActivationQuantizer):
            raise UserError(
                f"Layer {name!r} with weights is in one of {source.name!r} and its copy; allowed: "
                "the same layers in both."
            )
    for name in originals.keys() & copies.keys():
        original, copy = originals[name], copies[name]
        if isinstance(copy, keras.Model):
            copy_weights(original, copy)
        elif copy.weights:
            own, given = copy.get_weights(), original.get_weights()
            give_weights(copy, [*given[: len(own)], *own[len(given) :]])


def give_weights(target: keras.layers.Layer, weights: Sequence[np.ndarray]) -> None:
    """Sets the weights of a layer or model, and all that layers made of earlier ones.

    `keras.layers.Normalization` computes with tensors that it makes of its mean and variance when
    it is adapted or loaded; `set_weights` alone leaves the old ones.

    Args:
        target: the layer or model.
        weights: as for `set_weights`.
    """
    target.set_weights(weights)
    _finalize(target)


def _finalize(layer: keras.layers.Layer) -> None:
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            _finalize(inner)
    elif isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    return {layer.name: layer for layer in model.layers}
