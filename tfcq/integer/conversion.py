"""Float TFLite files, by TensorFlow's converter."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcq import native_messages
from tfcq.errors import UserError


def float_file(
    compute: Callable[..., Any], taken: list[tuple[tuple, str]], variables: list[Any], what: str
) -> bytes:
    """Returns a TFLite file of a function.

    Args:
        compute: the function.
        taken: shape and type of each tensor that it takes.
        variables: what it reads, which becomes constants.
        what: what the function is, for the message.

    Raises:
        UserError: when LiteRT has no operation for a part of it.
    """
    # The converter freezes only variables that the module it is given holds itself.
    module = tf.Module()
    module.held = [variable.value for variable in variables]
    signature = [tf.TensorSpec(shape, kind) for shape, kind in taken]
    module.compute = tf.function(compute, input_signature=signature)
    refusal = ""
    with warnings.catch_warnings(), native_messages.hidden():
        warnings.simplefilter("ignore")
        function = module.compute.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        try:
            return converter.convert()
        except Exception as error:
            # The converter's own class of errors is not public.
            refusal = str(error)
    lacked = re.search(r"(?:TF Select|Custom) ops: (.*)", refusal)
    why = f"LiteRT has no {lacked[1]}" if lacked else f"the converter refuses it: {refusal[:200]}"
    raise UserError(f"{what} cannot be written: {' '.join(why.split())}.")
