"""A TFLite model on the kernels of microcontrollers."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfcq import native_messages
from tfcq.errors import UserError
from tfcq.integer.emulation import only_input
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import as_levels

# Beside the tensors themselves; the runtime tells afterwards how much of it was used.
_ROOM = 2**20
_ALLOCATION = re.compile(r"'([^']+)' used (\d+) bytes")
_TOTAL = re.compile(r"Arena allocation (\w+) (\d+) bytes")
_LACKED = re.compile(r"Failed to get registration from op code (\w+)")


@dataclasses.dataclass(frozen=True)
class Arena:
    """The memory that an interpreter needs beside the file, in bytes.

    As told on the machine at hand: where addresses have 4 bytes, as on microcontrollers, the
    persistent part is smaller.

    Args:
        total: all of it.
        persistent: what is kept from start to end.
        non_persistent: the tensors, which share room.
        kinds: what persists, by kind of allocation.
    """

    total: int
    persistent: int
    non_persistent: int
    kinds: dict[str, int]


class MicroModel:
    """Runs a TFLite model of single images with the kernels of microcontrollers.

    They follow the rules of LiteRT's `"reference"` kernels, but for dense layers with a scale for
    each channel: rounded twice here, as in every other product, and once there.

    Args:
        content: the bytes of a `.tflite` file.

    Raises:
        UserError: when the runtime is not installed, or on a file that it does not run.

    Example:
        >>> model = MicroModel(pathlib.Path("int8.tflite").read_bytes())
        >>> outputs, kilobytes = model(images), model.arena.total / 1024
    """

    def __init__(self, content: bytes) -> None:
        file = LiteFile.read(content)
        runtime = _runtime()
        self.flash = len(content)
        self._input = file.tensors[only_input(file)]
        if self._input.shape[:1] != (1,):
            raise UserError(
                f"The file takes {list(self._input.shape)}; allowed: one image at once, such as "
                "[1, height, width, channels]."
            )
        self._outputs = len(file.outputs)
        sizes = [4 * int(np.prod(t.shape)) for t in file.tensors if t.data is None]
        room = _ROOM + 10 * len(content) + sum(sizes)
        with native_messages.hidden() as told:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=room)
                self._interpreter.set_input(np.zeros(self._input.shape, self._input.dtype), 0)
                self._interpreter.invoke()
                refused = None
            except (RuntimeError, ValueError) as error:
                refused = f"{told()}\n{error}".strip().splitlines()[0]
        if refused is not None:
            lacked = _lacked(runtime, content)
            if lacked:
                raise UserError(
                    f"tflite-micro lacks {', '.join(lacked)}; allowed: files without, or LiteRT's "
                    "own kernels: xnnpack, optimized, reference."
                )
            raise UserError(f"tflite-micro refuses the file: {refused}")
        self.arena = self._told_arena()

    def __call__(self, images: Iterable[np.ndarray]) -> Any:
        """Returns what the model makes of images, as `LiteModel` does.

        Args:
            images: each float [height, width, channels] in [0, 1].
        """
        outputs = [np.stack(found) for found in zip(*map(self._run, images), strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        one = self._input
        if image.shape != one.shape[1:]:
            raise UserError(
                f"An image of shape {list(image.shape)} was received; allowed: "
                f"{list(one.shape[1:])}."
            )
        scale, zero_point = (one.scale, one.zero_point) if len(one.scales) else (0.0, 0)
        pixels = as_levels(image[np.newaxis], np.dtype(one.dtype), float(scale), zero_point)
        self._interpreter.set_input(pixels, 0)
        self._interpreter.invoke()
        return [self._interpreter.get_output(number)[0] for number in range(self._outputs)]

    def _told_arena(self) -> Arena:
        with native_messages.hidden() as told:
            self._interpreter.print_allocations()
            text = told()
        parts = {name: int(count) for name, count in _TOTAL.findall(text)}
        kinds = {name: int(count) for name, count in _ALLOCATION.findall(text)}
        return Arena(parts["total"], parts["tail"], parts["head"], kinds)


def _runtime() -> Any:
    try:
        from tflite_micro import runtime
    except ImportError as error:
        raise UserError(
            "The kernels of microcontrollers need tflite-micro, of which development versions "
            "exist alone; install it with `pip install --pre tflite-micro`."
        ) from error
    return runtime


def _lacked(runtime: Any, content: bytes) -> list[str]:
    """Returns the operations of a file that the runtime has not.

    It names the first one that it looks up in vain, so that each is taken out in its turn. One that
    no runtime has stands last: a file without some of its operations is never started.
    """
    import flatbuffers

    schema = runtime.schema_fb
    model = runtime.convert_bytearray_to_object(content)
    (graph,), codes = model.subgraphs, model.operatorCodes
    none = schema.OperatorCodeT()
    none.builtinCode = none.deprecatedBuiltinCode = schema.BuiltinOperator.DELEGATE
    last = schema.OperatorT()
    last.opcodeIndex, last.inputs, last.outputs = len(codes), [], []
    codes.append(none)
    graph.operators.append(last)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    lacked: list[str] = []
    while True:
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        with native_messages.hidden() as told:
            with contextlib.suppress(RuntimeError):
                runtime.Interpreter.from_bytes(bytes(builder.Output()), arena_size=2**26)
            found = _LACKED.search(told())
        if found is None or found[1] in ("DELEGATE", *lacked):
            return lacked
        lacked.append(found[1])
        graph.operators = [
            one
            for one in graph.operators
            if names[runtime.get_builtin_code_from_operator_code(codes[one.opcodeIndex])]
            != found[1]
        ]
