"""Reads what `save` wrote: a network, or a whole training."""

import os
from typing import Any

import keras

from tfcq.nn import loading
from tfcq.pretraining import pretrainer  # noqa: F401 - registers its class


def load(path: str | os.PathLike, custom_objects: dict[str, Any] | None = None) -> keras.Model:
    """Returns a model saved with `model.save("name.keras")`; a `Pretrainer` goes on where it was.

    Args:
        path: the file.
        custom_objects: classes and functions of the user's that the file names, by their names, as
            for `keras.saving.load_model`; those of a `Pretrainer`'s optimizer too.

    Raises:
        UserError: when it cannot be read, or names a class or function that is not known here.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> encoder.save("encoder.keras")
        >>> tfcq.load("encoder.keras").output_shape
        (None, 8)
    """
    return loading.load(path, custom_objects, whole_training=True)
