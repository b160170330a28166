"""The one place where a layer is told that its call takes `precision`, as it takes `training`."""

import keras


def accept_precision(layer: keras.layers.Layer) -> None:
    """Makes a layer or model receive the call argument `precision` and pass it to what it calls.

    Args:
        layer: a layer that has not been called yet.
    """
    # Keras documents this method in its docstring and carries such an argument through nested
    # functional models; there is no public spelling of it up to 3.15.
    layer._register_call_context_args("precision")
