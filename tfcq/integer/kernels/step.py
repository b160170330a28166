"""One operation on its way through an emulation."""

import dataclasses
from typing import Any

import numpy as np

from tfcq.integer.kernels.rounding import Array, half_away
from tfcq.integer.lite_file import Operation, Tensor
from tfcq.settings.kernels import OPTIMIZED, XNNPACK

_NO_ACTIVATION, _RELU, _RELU_N1_TO_1, _RELU6 = range(4)
_LIMITS = {_RELU: (0, None), _RELU_N1_TO_1: (-1, 1), _RELU6: (0, 6)}


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """An operation with what it is computed from.

    Args:
        operation: the operation.
        inputs: its tensors, None where an optional one is absent.
        outputs: its tensors.
        values: of each input, an axis of images before those of the tensor; of size 1 where the
            value is the same for all images.
        kernels: the set of kernels.
    """

    operation: Operation
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    values: list[Array | None]
    kernels: str

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def tensor(self, index: int) -> Tensor:
        """Returns an input that must be there."""
        found = self.inputs[index]
        assert found is not None
        return found

    def value(self, index: int) -> Array:
        """Returns the value of an input that must be there."""
        found = self.values[index]
        assert found is not None
        return found

    def centred(self, index: int) -> Array:
        """Returns the levels of an input without their zero point, int64."""
        return self.value(index).astype(np.int64) - self.tensor(index).zero_point

    def operands(self) -> tuple[Array, Array]:
        """Returns both inputs, with axes as two tensors that are spread over one another have."""
        left, right = self.value(0), self.value(1)
        rank = max(left.ndim, right.ndim)
        left, right = (
            one.reshape(len(one), *(1,) * (rank - one.ndim), *one.shape[1:])
            for one in (left, right)
        )
        return left, right

    def centred_operands(self) -> tuple[Array, Array]:
        """Returns both inputs as `operands` and `centred` do."""
        left, right = self.operands()
        first, second = self.tensor(0).zero_point, self.tensor(1).zero_point
        return left.astype(np.int64) - first, right.astype(np.int64) - second

    def constant(self, index: int) -> Array:
        """Returns the value of an input that is the same for all images."""
        return self.value(index)[0]

    def has(self, index: int) -> bool:
        """Returns whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def option(self, name: str, default: Any = 0) -> Any:
        """Returns an option of the operation."""
        return self.operation.options.get(name, default)

    def on(self, kernels: str) -> "Step":
        """Returns the step on another set of kernels."""
        return dataclasses.replace(self, kernels=kernels)

    def unless(self, delegated: bool | np.bool) -> "Step":
        """Returns the step where it runs: XNNPACK leaves what it does not take to the optimized."""
        if self.kernels == XNNPACK and not delegated:
            return self.on(OPTIMIZED)
        return self

    def bounds(self) -> tuple[int, int]:
        """Returns the least and the greatest level of the output under the fused activation."""
        return activation_bounds(
            self.output, self.option("fusedActivationFunction"), self.kernels == XNNPACK
        )

    def is_integer(self) -> bool:
        """Returns whether the output holds levels."""
        return self.output.dtype != "float32"

    def stored(self, levels: Array, bounds: tuple[int, int] | None = None) -> Array:
        """Returns levels within bounds, of the output's type."""
        low, high = bounds or limits(self.output)
        return np.clip(levels, low, high).astype(self.output.dtype)

    def maps(self) -> Array:
        """Returns the first input, [images, height, width, channels]: batches of one axis."""
        value = self.value(0)
        return value.reshape(-1, *value.shape[2:])

    def of_maps(self, values: Array) -> Array:
        """Returns what was made of `maps`, each image with its batch."""
        return values.reshape(*self.value(0).shape[:2], *values.shape[1:])


def limits(tensor: Tensor) -> tuple[int, int]:
    """Returns the least and the greatest value that the tensor's type holds."""
    found = np.iinfo(tensor.dtype)
    return int(found.min), int(found.max)


def activation_bounds(tensor: Tensor, activation: int, to_even: bool) -> tuple[int, int]:
    """Returns the levels between which an activation lets values through."""
    low, high = limits(tensor)
    for index, bound in enumerate(_LIMITS.get(activation, ())):
        if bound is None:
            continue
        steps = np.float32(bound) / tensor.scale
        if to_even:
            level = int(np.clip(np.rint(steps + np.float32(tensor.zero_point)), *limits(tensor)))
        else:
            level = int(half_away(steps)) + tensor.zero_point
        low, high = (max(low, level), high) if index == 0 else (low, min(high, level))
    return low, high
