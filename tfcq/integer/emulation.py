"""What a `.tflite` file computes, to the last bit, on each set of kernels.

A file does not say what it computes: LiteRT has a reference, an optimized and an XNNPACK kernel of
most operations, which round in different ways. Here are their rules, by `kernels/`, as measured on
x86. On ARM, optimized kernels compute softmax and hard swish otherwise; on several threads, an
optimized mean over height and width rounds other channels up.
"""

from collections.abc import Callable

import numpy as np

from tfcq.errors import UserError
from tfcq.integer.kernels import activations, elementwise, products, reductions, shapes, softmax
from tfcq.integer.kernels.rounding import Array
from tfcq.integer.kernels.step import Step
from tfcq.integer.lite_file import LiteFile, Operation
from tfcq.settings.kernels import KERNELS, REFERENCE

_RULES: dict[str, Callable[[Step], Array | list[Array]]] = {
    **products.RULES,
    **elementwise.RULES,
    **activations.RULES,
    **softmax.RULES,
    **reductions.RULES,
    **shapes.RULES,
}

# Kinds that move values of any type.
_ANY = frozenset([*shapes.RULES, "REDUCE_MAX", "REDUCE_MIN"])
# Kinds of which there is a rule for one type alone: of sizes, or of numbers.
_ALONE = {"REDUCE_PROD": "int32", "NEG": "float32"}
# Kinds whose float32 kernels round as IEEE says, whatever the set.
_FLOAT = frozenset(
    ["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "QUANTIZE"]
)
_UNSIGNED = frozenset(["QUANTIZE", "DEQUANTIZE"])
# What LiteRT has no kernel of in a set.
_ABSENT = frozenset([("ELU", REFERENCE)])
# Integer kernels that end LiteRT, by a refusal or a crash, where there is no bias.
_BIASED = frozenset(["CONV_2D", "DEPTHWISE_CONV_2D"])


def emulate(file: LiteFile, images: Array, kernels: str) -> list[Array | None]:
    """Returns the value of every tensor of a file.

    Args:
        file: the file.
        images: of the type and the shape of the file's input, as many as wanted along the first
            axis.
        kernels: one of `KERNELS`.

    Returns:
        By tensor: as the file holds it where it is a constant; else with the first axis of every
        image's value behind that of the one before. None where nothing is computed.

    Raises:
        UserError: on images that the file does not take, unknown kernels, or an operation that has
            no rule.

    Example:
        >>> file = LiteFile.read(pathlib.Path("model.tflite").read_bytes())
        >>> outputs = [emulate(file, images, "xnnpack")[index] for index in file.outputs]
    """
    check_rules(file, kernels)
    index = checked_input(file, images)
    values: list[Array | None] = [
        None if tensor.data is None else tensor.data[None] for tensor in file.tensors
    ]
    values[index] = images.reshape(-1, *file.tensors[index].shape)
    count = len(images) // file.tensors[index].shape[0]
    computed = {index}
    for operation in file.operations:
        found = _RULES[operation.kind](_step(file, operation, values, kernels))
        outputs = found if isinstance(found, list) else [found]
        for output, value in zip(operation.outputs, outputs, strict=True):
            values[output] = value
            computed.add(output)
    return [
        tensor.data if value is None or index not in computed else stacked(value, count)
        for index, (value, tensor) in enumerate(zip(values, file.tensors, strict=True))
    ]


def check_rules(file: LiteFile, kernels: str) -> None:
    """Refuses kernels that are not known and operations without a rule.

    Raises:
        UserError: naming them.
    """
    if kernels not in KERNELS:
        raise UserError(f"Unknown kernels {kernels!r}; allowed: {', '.join(KERNELS)}.")
    for operation in file.operations:
        name = file.tensors[operation.outputs[0]].name
        if operation.kind not in _RULES:
            raise UserError(
                f"The emulation has no rule for {operation.kind} (it makes {name!r}); allowed: "
                f"{', '.join(sorted(_RULES))}."
            )
        if (operation.kind, kernels) in _ABSENT:
            raise UserError(f"LiteRT has no {kernels} kernel of {operation.kind} ({name!r}).")
        if operation.kind in _BIASED and (len(operation.inputs) < 3 or operation.inputs[2] < 0):
            raise UserError(f"LiteRT computes no {operation.kind} without a bias ({name!r}).")
        types = _types(operation)
        found = file.tensors[operation.inputs[operation.kind == "SPLIT"]].dtype
        if types is not None and found not in types:
            raise UserError(
                f"The emulation has no rule for {operation.kind} of {found} (it makes {name!r}); "
                f"allowed: {', '.join(types)}."
            )


def _types(operation: Operation) -> list[str] | None:
    """Returns the types that an operation's rule reads, None for all."""
    if operation.kind in _ANY:
        return None
    if operation.kind in _ALONE:
        return [_ALONE[operation.kind]]
    unsigned = ["uint8"] if operation.kind in _UNSIGNED else []
    real = ["float32"] if operation.kind in _FLOAT else []
    return ["int8", *unsigned, *real]


def only_input(file: LiteFile) -> int:
    """Returns the number of the file's input tensor.

    Raises:
        UserError: when the file has several.
    """
    if len(file.inputs) != 1:
        raise UserError(f"The file has {len(file.inputs)} inputs; allowed: one, the images.")
    return file.inputs[0]


def checked_input(file: LiteFile, images: Array) -> int:
    """Returns the number of the file's input tensor.

    Raises:
        UserError: when the file has several inputs or does not take the images.
    """
    index = only_input(file)
    tensor = file.tensors[index]
    fits = images.shape[1:] == tensor.shape[1:] and len(images) % tensor.shape[0] == 0
    if images.dtype != tensor.dtype or not fits:
        raise UserError(
            f"The file takes {tensor.dtype} {list(tensor.shape)}; got {images.dtype} "
            f"{list(images.shape)}."
        )
    if not len(images):
        raise UserError("There are no images; the file takes at least one.")
    return index


def stacked(value: Array, count: int) -> Array:
    """Returns [images, first axis, ...] values with the first two axes as one."""
    value = np.ascontiguousarray(np.broadcast_to(value, (count, *value.shape[1:])))
    return value.reshape(-1, *value.shape[2:])


def _step(file: LiteFile, operation: Operation, values: list[Array | None], kernels: str) -> Step:
    present = [index if index >= 0 else None for index in operation.inputs]
    return Step(
        operation,
        [None if index is None else file.tensors[index] for index in present],
        [file.tensors[index] for index in operation.outputs],
        [None if index is None else values[index] for index in present],
        kernels,
    )
