"""The dtype in which layers multiply inputs and kernels; all else stays as it is."""

import pathlib

import keras
import tensorflow as tf

from tfcq.nn.layer_bits import leaves_of
from tfcq.nn.layers import QuantizedKernel
from tfcq.settings.training_groups import AUTO, BFLOAT16, FLOAT32

# Processors that multiply bfloat16 as Linux names it.
_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
# The first GPUs that do, by compute capability.
_AMPERE = 8


def multiply_in(model: keras.Model, dtype: str) -> None:
    """Makes convolutions and dense layers multiply in a dtype and return what they did before.

    Kernels are quantized before they are rounded to it. Variables, ranges, scales, rounding, batch
    norms and losses keep their dtype, and saved models do not say how they were multiplied.

    Args:
        model: a quantizable model; its layers are changed, those of nested models too.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, whose gradients need loss scaling.
    """
    for layer in leaves_of(model):
        if isinstance(layer, QuantizedKernel):
            layer.product_dtype = None if dtype == FLOAT32 else dtype


def product_dtype(asked: str) -> str:
    """Returns the dtype to multiply in: what is asked for, or for `"auto"` the fastest there is.

    Args:
        asked: `"float32"`, `"bfloat16"`, `"float16"` or `"auto"`.
    """
    if asked != AUTO:
        return asked
    return BFLOAT16 if _multiplies_bfloat16() else FLOAT32


def _multiplies_bfloat16() -> bool:
    """Whether the devices that TensorFlow computes on multiply bfloat16 faster than float32."""
    if tf.config.list_logical_devices("TPU"):
        return True
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(one.get("compute_capability", (0,))[0] >= _AMPERE for one in details)
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    told = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return bool(_FEATURES & set(next(told, "").split()))
