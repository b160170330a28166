"""Weights from one model to another that was cloned from it."""

import keras


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of layers that both models have, by their names.

    Learned and stored scales stand behind a layer's own weights: where one side has them and the
    other has not, they are left as they are. Nested models are copied alike.

    Args:
        source: the model whose weights are copied.
        target: the model that receives them.
    """
    known = {layer.name for layer in source.layers}
    for layer in target.layers:
        if layer.name not in known:
            continue
        original = source.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            copy_weights(original, layer)
        elif layer.weights:
            own, given = layer.get_weights(), original.get_weights()
            layer.set_weights([*given[: len(own)], *own[len(given) :]])
