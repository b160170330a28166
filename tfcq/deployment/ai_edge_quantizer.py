"""Post-training quantization by ai-edge-quantizer, and a check that it did what was asked for."""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfcq import native_messages
from tfcq.deployment.tflite import check_classified, float_tflite
from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile, Operation, Tensor
from tfcq.integer.runtime import LiteModel
from tfcq.settings.bitwidths import BitWidth, parse_bit_width

# Operations with a kernel as their second input.
_WITH_KERNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_CHECKED = 64


def quantizer_tflite(
    model: keras.Model, images: np.ndarray, bits: str = "8w8a", dynamic: bool = False
) -> bytes:
    """Returns a TFLite model that ai-edge-quantizer makes of a network.

    Its input is uint8 and its output float32, as those of `tfcq.int8_tflite`; where activations are
    quantized while the file runs, both are float32.

    Args:
        model: functional model of images in [0, 1], quantizable or not.
        images: float32 [count, height, width, channels], which set the ranges.
        bits: bit-width of weights and activations, the latter 8.
        dynamic: whether activations are stored in float and quantized while the file runs.

    Raises:
        UserError: on other images or several outputs, or when the package is not installed,
            refuses, or returns something else than what was asked for.
    """
    check_classified(model, images)
    return quantized_file(float_tflite(model), images, parse_bit_width(bits), dynamic)


def quantized_file(
    content: bytes, images: np.ndarray, bits: BitWidth, dynamic: bool = False
) -> bytes:
    """Returns what ai-edge-quantizer makes of a float file, as `quantizer_tflite` does.

    Args:
        content: the bytes of a float `.tflite` file of single images.
        images: as `quantizer_tflite` takes them.
        bits: bit-width of weights and activations.
        dynamic: as `quantizer_tflite` takes it.

    Raises:
        UserError: as `quantizer_tflite` does.
    """
    if bits.weights is None or bits.activations != 8:
        raise UserError(f"ai-edge-quantizer is not asked for {bits}; allowed: such as 8w8a, 4w8a.")
    made = _made(content, images, bits, dynamic)
    file = LiteFile.read(made, "What ai-edge-quantizer returned")
    check_received(file, bits, dynamic)
    if not dynamic:
        _take_pixels(file)
        made = file.to_bytes()
    check_outputs(made, content, images[:_CHECKED], bits)
    return made


def _made(content: bytes, images: np.ndarray, bits: BitWidth, dynamic: bool) -> bytes:
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise UserError(
            "Quantizing by ai-edge-quantizer needs it; install it with `pip install "
            "ai-edge-quantizer`."
        ) from error
    file = LiteFile.read(content)
    # A file names its inputs for signatures without the number of the tensor.
    name = file.tensors[file.inputs[0]].name.removeprefix("serving_default_").rpartition(":")[0]
    with native_messages.hidden(), _silence():
        try:
            recipe = quantizer.Quantizer(content)
            every = qtyping.TFLOperationName.ALL_SUPPORTED
            ranges: Any = {}
            if dynamic:
                recipe.add_dynamic_config(".*", every, bits.weights)
            else:
                recipe.add_static_config(".*", every, bits.activations, bits.weights)
                data = [{name: image[np.newaxis]} for image in images]
                ranges = recipe.calibrate({"serving_default": data}, num_threads=1)
            return bytes(recipe.quantize(ranges).quantized_model)
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            refusal = f"ai-edge-quantizer refuses {bits}: {line or type(error).__name__}"
    raise UserError(refusal)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hides what the library prints, draws and warns of."""
    told = io.StringIO()
    streams = contextlib.redirect_stdout(told), contextlib.redirect_stderr(told)
    with streams[0], streams[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_received(file: LiteFile, bits: BitWidth, dynamic: bool = False) -> None:
    """Refuses a file whose weights have other bits than were asked for, or that computes in float.

    Args:
        file: what ai-edge-quantizer returned.
        bits: what it was asked for.
        dynamic: whether activations may be floats.

    Raises:
        UserError: naming what was received.
    """
    wanted = f"int{bits.weights}"
    received: Counter[str] = Counter()
    for one in file.operations:
        if one.kind in _WITH_KERNEL:
            kernel = file.tensors[one.inputs[1]].dtype
            if kernel != wanted:
                received[f"{one.kind} with {kernel} weights"] += 1
                continue
        if not dynamic and _computes_in_float(file, one):
            received[f"{one.kind} in float32"] += 1
    if received:
        named = ", ".join(f"{count} {what}" for what, count in sorted(received.items()))
        raise UserError(
            f"ai-edge-quantizer was asked for {bits} and returned {named}; allowed: {wanted} "
            "weights in every layer and no operation in float. Files of tfcq.int8_tflite hold "
            "weights of 2 to 8 bits."
        )


def _computes_in_float(file: LiteFile, one: Operation) -> bool:
    """Whether an operation takes and gives floats, or lies between others that do."""
    ends = one.kind in ("QUANTIZE", "DEQUANTIZE")
    outer = {*file.inputs, *file.outputs}
    kinds = {file.tensors[i].dtype for i in (*one.inputs, *one.outputs) if i >= 0}
    return "float32" in kinds and not (ends and outer & {*one.inputs, *one.outputs})


def check_outputs(
    content: bytes, original: bytes, images: np.ndarray, bits: BitWidth
) -> dict[str, float]:
    """Refuses a file whose outputs are no nearer to the float file's than zeros are.

    Args:
        content: the bytes of the file.
        original: those of the float file.
        images: float32 [count, height, width, channels].
        bits: what was asked for.

    Returns:
        By kernels, the squared error over the squares of the float file's outputs, 0 to 1.

    Raises:
        UserError: naming the kernels.
    """
    expected = LiteModel(original)(images).astype(np.float64)
    squares = np.sum(expected**2)
    errors = {}
    for kernels in ("xnnpack", "optimized", "reference"):
        found = LiteModel(content, kernels=kernels)(images)
        errors[kernels] = float(np.sum((found - expected) ** 2) / squares)
    chance = {name: error for name, error in errors.items() if not error < 1}
    if chance:
        told = ", ".join(f"{error:.2g} on {name}" for name, error in chance.items())
        raise UserError(
            f"ai-edge-quantizer was asked for {bits} and its file is at chance: its squared error "
            f"over the squares of the float outputs is {told}; allowed: below 1."
        )
    return errors


def _take_pixels(file: LiteFile) -> None:
    """Puts uint8 pixels in front of a file and float32 outputs behind it, as `int8_tflite` does."""
    (taken,) = file.inputs
    pixels = Tensor(
        "images", file.tensors[taken].shape, "uint8",
        np.array([1 / 255], np.float32), np.zeros(1, np.int64),
    )  # fmt: skip
    file.tensors.append(pixels)
    file.inputs = [len(file.tensors) - 1]
    file.operations.insert(0, Operation("QUANTIZE", file.inputs, [taken]))
    for number, index in enumerate(file.outputs):
        output = Tensor(f"output:{number}", file.tensors[index].shape, "float32")
        file.tensors.append(output)
        file.outputs[number] = len(file.tensors) - 1
        file.operations.append(Operation("DEQUANTIZE", [index], [file.outputs[number]], version=2))
