"""Float TFLite files, by TensorFlow's converter."""

import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcq import native_messages


def float_file(compute: Callable[..., Any], shapes: list[tuple], variables: list[Any]) -> bytes:
    """Returns a TFLite file of a function of float32 tensors.

    Args:
        compute: the function.
        shapes: shape of each tensor that it takes.
        variables: what it reads, which becomes constants.
    """
    # The converter freezes only variables that the module it is given holds itself.
    module = tf.Module()
    module.held = [variable.value for variable in variables]
    signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    module.compute = tf.function(compute, input_signature=signature)
    with warnings.catch_warnings(), native_messages.hidden():
        warnings.simplefilter("ignore")
        function = module.compute.get_concrete_function()
        return tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()
