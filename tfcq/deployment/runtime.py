"""A TFLite model in the LiteRT runtime."""

import dataclasses
import importlib.metadata
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfcq import native_messages
from tfcq.errors import UserError


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


def _interpreter_class() -> type:
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


class LiteModel:
    """Runs a TFLite model that takes single images.

    Args:
        content: the bytes of a `.tflite` file.
        threads: threads of the runtime.

    Raises:
        UserError: when the runtime is not installed.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        self._interpreter = _interpreter_class()(model_content=content, num_threads=threads)
        (self._input,) = self._interpreter.get_input_details()
        # The file numbers them in the order in which the model returns them.
        self._outputs = sorted(
            self._interpreter.get_output_details(),
            key=lambda details: int(details["name"].rpartition(":")[2] or 0),
        )
        returned = {details["index"] for details in self._outputs}
        # Read before the runtime adds scratch tensors of its own.
        self.tensors = [
            LiteTensor(
                details["name"],
                details["dtype"],
                details["quantization_parameters"]["scales"],
                details["quantization_parameters"]["zero_points"],
                details["index"] in returned,
            )
            for details in self._interpreter.get_tensor_details()
        ]
        with native_messages.hidden():
            self._interpreter.allocate_tensors()

    def __call__(self, images: Iterable[np.ndarray]) -> Any:
        """Returns what the model makes of images, float32 [count, width].

        Args:
            images: each float [height, width, channels] in [0, 1].

        Returns:
            The array; of a model with several outputs, a list of them.
        """
        outputs = [np.stack(found) for found in zip(*map(self._run, images), strict=True)]
        return outputs[0] if len(self._outputs) == 1 else outputs

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input["index"], self._as_input(image[np.newaxis]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]

    def _as_input(self, image: np.ndarray) -> np.ndarray:
        dtype = self._input["dtype"]
        if dtype == np.float32:
            return image.astype(np.float32)
        scale, zero_point = self._input["quantization"]
        limits = np.iinfo(dtype)
        return np.clip(np.round(image / scale) + zero_point, limits.min, limits.max).astype(dtype)

    def invoke(self) -> None:
        """Computes once more on the last image, for measuring time."""
        self._interpreter.invoke()
