"""A TFLite model as a C array, for devices without files."""

import keyword
import re
from collections.abc import Sequence

from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile, Tensor

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Of C and of C++, those that Python has not.
_WORDS = {
    "alignas", "alignof", "auto", "bool", "case", "catch", "char", "const", "constexpr", "default",
    "delete", "do", "double", "enum", "explicit", "export", "extern", "false", "float", "friend",
    "goto", "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "nullptr",
    "operator", "private", "protected", "public", "register", "restrict", "short", "signed",
    "sizeof", "static", "struct", "switch", "template", "this", "throw", "true", "typedef",
    "typeid", "typename", "union", "unsigned", "using", "virtual", "void", "volatile",
}  # fmt: skip
_BYTES_A_LINE = 16


def c_array(content: bytes, name: str, labels: Sequence[str] = ()) -> tuple[str, str]:
    """Returns the C source and the header of a model.

    The array stands at a multiple of 16 bytes, as the interpreter of microcontrollers reads it in
    place. The header names its length, shape, type, scale and zero point of inputs and outputs, and
    the labels; floats that the last operation makes of integers have the scale of those.

    Args:
        content: the bytes of a `.tflite` file.
        name: what the array is called in C.
        labels: names of the classes, in the order of the scores.

    Raises:
        UserError: on a name that C does not take, bytes that are no TFLite model, or labels of
            another number than its scores.

    Example:
        >>> source, header = c_array(pathlib.Path("int8.tflite").read_bytes(), "digits")
    """
    _check_name(name)
    file = LiteFile.read(content)
    width = file.tensors[file.outputs[0]].shape[-1:]
    if labels and width != (len(labels),):
        raise UserError(f"{len(labels)} labels were received; allowed: {width[0]}, one a score.")
    big = name.upper()
    ends = [*_constants(file, f"{big}_INPUT", file.inputs)]
    ends += _constants(file, f"{big}_OUTPUT", file.outputs)
    named = [f"#define {big}_LABELS {len(labels)}", f"extern const char* const {name}_labels[];"]
    header = [
        f"#ifndef {big}_H_",
        f"#define {big}_H_",
        "",
        *ends,
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"#define {big}_BYTES {len(content)}",
        f"extern const unsigned char {name}[];",
        *(named if labels else []),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    rows = [content[at : at + _BYTES_A_LINE] for at in range(0, len(content), _BYTES_A_LINE)]
    source = [
        f'#include "{name}.h"',
        "",
        "#ifndef __cplusplus",
        "#include <stdalign.h>",
        "#endif",
        "",
        f"alignas(16) const unsigned char {name}[] = {{",
        *(",".join(map(str, row)) + "," for row in rows),
        "};",
        "",
    ]
    if labels:
        texts = ", ".join(map(_quoted, labels))
        source += [f"const char* const {name}_labels[] = {{{texts}}};", ""]
    return "\n".join(source), "\n".join(header)


def _check_name(name: str) -> None:
    word = name in _WORDS or keyword.iskeyword(name)
    if not _IDENTIFIER.fullmatch(name) or word:
        near = re.sub(r"[^A-Za-z0-9_]", "_", name) if name else "model"
        near = f"model_{near}" if word or not _IDENTIFIER.fullmatch(near) else near
        raise UserError(
            f"Name {name!r} was received; allowed: an identifier of C, such as {near!r}."
        )


def _constants(file: LiteFile, prefix: str, indices: Sequence[int]) -> list[str]:
    """Returns what is known of inputs or outputs, a definition a line."""
    lines = []
    for number, index in enumerate(indices):
        start = prefix if number == 0 else f"{prefix}_{number}"
        tensor = file.tensors[index]
        made = [one for one in file.operations if index in one.outputs and one.kind == "DEQUANTIZE"]
        held = file.tensors[made[0].inputs[0]] if made else tensor
        of = f", which the model makes of {held.dtype} of this scale" if made else ""
        lines += [
            f"// {tensor.dtype} {list(tensor.shape)}{of}",
            f"#define {start}_VALUES {_count(tensor)}",
        ]
        if len(held.scales):
            lines += [
                f"#define {start}_SCALE {float(held.scale):.9e}f",
                f"#define {start}_ZERO_POINT {held.zero_point}",
            ]
    return lines


def _count(tensor: Tensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _quoted(text: str) -> str:
    """Returns a text as a literal of C, whatever it holds."""
    # Three digits end an escape; what stands behind cannot join it.
    return '"' + "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    ) + '"'  # fmt: skip
