"""A TFLite model in the LiteRT runtime."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tfcq import native_messages
from tfcq.errors import UserError
from tfcq.integer.emulation import checked_input, only_input
from tfcq.integer.lite_file import LiteFile
from tfcq.settings.kernels import KERNELS, XNNPACK

# What LiteRT calls them.
RESOLVERS = {
    "xnnpack": "BUILTIN", "optimized": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class LiteTensor:
    """One tensor of a TFLite model.

    Args:
        name: name, in which converters join the names of the operations that were fused.
        dtype: type of its values.
        scales: float32, empty where not quantized, one for all or one per output channel.
        zero_points: int32, one for each scale.
        is_output: whether the model returns it.
    """

    name: str
    dtype: type
    scales: np.ndarray
    zero_points: np.ndarray
    is_output: bool


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            "Running a TFLite model needs LiteRT; install it with `pip install ai-edge-litert`."
        ) from error
    return Interpreter


def runtime_version() -> str:
    """Returns the version of the LiteRT runtime.

    Raises:
        UserError: when the runtime is not installed.
    """
    _interpreter_class()
    return importlib.metadata.version("ai-edge-litert")


def interpreter_of(content: bytes, threads: int, kernels: str) -> Any:
    """Returns LiteRT's interpreter of a file.

    Args:
        content: the bytes of the file.
        threads: threads of the runtime.
        kernels: one of `KERNELS`.

    Raises:
        UserError: when the runtime is not installed, or does not take the file.
    """
    made = _interpreter_class()
    if kernels not in KERNELS:
        raise UserError(f"Unknown kernels {kernels!r}; allowed: {', '.join(KERNELS)}.")
    from ai_edge_litert.interpreter import OpResolverType

    with _refusals(kernels):
        return made(
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=getattr(OpResolverType, RESOLVERS[kernels]),
        )


@contextlib.contextmanager
def _refusals(kernels: str) -> Iterator[None]:
    """Says in a line what LiteRT does not take, and hides what it says of itself."""
    refusal = None
    with native_messages.hidden():
        try:
            yield
        except (RuntimeError, ValueError) as error:
            refusal = str(error).splitlines()[0]
    if refusal is not None:
        raise UserError(f"LiteRT cannot run the file on {kernels} kernels: {refusal}")


def as_levels(images: np.ndarray, dtype: Any, scale: float, zero_point: int) -> np.ndarray:
    """Returns images as a file takes them.

    Args:
        images: float [..., height, width, channels] in [0, 1].
        dtype: type of the file's input.
        scale: its scale, of integers; 0 where they have none, and are the pixels themselves.
        zero_point: its zero point, of integers.
    """
    if np.dtype(dtype) == np.float32:
        return images.astype(np.float32)
    limits = np.iinfo(dtype)
    return np.clip(np.round(images / (scale or 1)) + zero_point, limits.min, limits.max).astype(
        dtype
    )


def every_tensor(file: LiteFile, images: np.ndarray, kernels: str) -> list[np.ndarray | None]:
    """Returns the value of every tensor of a file as LiteRT computes it.

    Args:
        file: the file.
        images: as `emulate` takes them.
        kernels: one of `KERNELS`.

    Returns:
        As `emulate` returns them.

    Raises:
        UserError: on images that the file does not take, or when LiteRT does not run the file.
    """
    source = checked_input(file, images)
    computed = list(dict.fromkeys(index for one in file.operations for index in one.outputs))
    # A delegate keeps what the model returns, and nothing in between.
    copy = dataclasses.replace(file, outputs=computed)
    interpreter = interpreter_of(copy.to_bytes(), 1, kernels)
    with _refusals(kernels):
        interpreter.allocate_tensors()
    found: dict[int, list[np.ndarray]] = {index: [] for index in computed}
    for image in images.reshape(-1, *file.tensors[source].shape):
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        for index, several in found.items():
            several.append(interpreter.get_tensor(index))
    values: list[np.ndarray | None] = [tensor.data for tensor in file.tensors]
    values[source] = images
    for index, several in found.items():
        values[index] = np.concatenate([np.atleast_1d(value) for value in several])
    return values


def _number(name: str) -> int:
    """Returns the number at the end of an output's name; other tools' files have none."""
    number = name.rpartition(":")[2]
    return int(number) if number.isdigit() else 0


class LiteModel:
    """Runs a TFLite model of images.

    Args:
        content: the bytes of a `.tflite` file.
        threads: threads of the runtime.
        kernels: the set of kernels: `"xnnpack"`, which LiteRT takes of itself, `"optimized"` or
            `"reference"`, which a microcontroller computes.

    Raises:
        UserError: when the runtime is not installed, or the bytes are no TFLite model that it runs.
    """

    def __init__(self, content: bytes, threads: int = 1, kernels: str = XNNPACK) -> None:
        only_input(LiteFile.read(content))
        self._interpreter = interpreter_of(content, threads, kernels)
        # Names, too, may be of a damaged file.
        with _refusals(kernels):
            (self._input,) = self._interpreter.get_input_details()
            # Images at once.
            self.batch = int(self._input["shape"][0])
            # The file numbers them in the order in which the model returns them.
            self._outputs = sorted(
                self._interpreter.get_output_details(),
                key=lambda details: _number(details["name"]),
            )
            # Read before the runtime adds scratch tensors of its own.
            self.tensors = self._own_tensors()
            self._interpreter.allocate_tensors()
            # What a kernel refuses, it refuses of any image.
            self._interpreter.invoke()

    def _own_tensors(self) -> list[LiteTensor]:
        returned = {details["index"] for details in self._outputs}
        return [
            LiteTensor(
                details["name"],
                details["dtype"],
                details["quantization_parameters"]["scales"],
                details["quantization_parameters"]["zero_points"],
                details["index"] in returned,
            )
            for details in self._interpreter.get_tensor_details()
        ]

    def __call__(self, images: Iterable[np.ndarray]) -> Any:
        """Returns what the model makes of images, float32 [count, width].

        Args:
            images: each float [height, width, channels] in [0, 1].

        Returns:
            The array; of a model with several outputs, a list of them.
        """
        several = iter(images)
        batches = iter(lambda: list(itertools.islice(several, self.batch)), [])
        outputs = [np.concatenate(found) for found in zip(*map(self._run, batches), strict=True)]
        return outputs[0] if len(self._outputs) == 1 else outputs

    def _run(self, images: list[np.ndarray]) -> list[np.ndarray]:
        # The last image stands for those that are missing.
        whole = np.stack([*images, *[images[-1]] * (self.batch - len(images))])
        self._interpreter.set_tensor(self._input["index"], self._as_input(whole))
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(output["index"]) for output in self._outputs]
        return [values[: len(images)] for values in found]

    def _as_input(self, images: np.ndarray) -> np.ndarray:
        return as_levels(images, self._input["dtype"], *self._input["quantization"])

    def invoke(self) -> None:
        """Computes once more on the last images, for measuring time."""
        self._interpreter.invoke()
