"""A TFLite file under way: its tensors on their grids, and its operations."""

from typing import Any

import numpy as np

from tfcq.integer.lite_file import LiteFile, Operation, Tensor
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.placement import read_graph
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision

# The zero point of uint8 levels as int8 has it.
OFFSET = 128
# The greatest level of a constant without a zero point.
LEVEL = 127
_RELU = {None: 1, 1: 2, 6: 3}
# The version of a kernel from which on it takes int8, beyond the first.
_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5, "ADD": 2, "SUB": 2, "MUL": 2,
    "MEAN": 2, "QUANTIZE": 1, "DEQUANTIZE": 2, "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2, "PAD": 2,
    "CONCATENATION": 2, "LOGISTIC": 2, "TANH": 2, "SOFTMAX": 2, "TRANSPOSE": 2, "LEAKY_RELU": 2,
    "STRIDED_SLICE": 2, "RESIZE_NEAREST_NEIGHBOR": 2, "GELU": 2, "MAXIMUM": 2, "MINIMUM": 2,
}  # fmt: skip

Grid = tuple[np.float32, int]


class Writer:
    """A file under way: a layer's outputs are a tensor of it, by the layer's name.

    Args:
        model: calibrated integer form.
        precision: the pass that is written.
        batch: images that the file takes at once.
        storage: type that kernels are stored in, `"int8"` or `"int4"`.
    """

    def __init__(
        self, model: QuantizableModel, precision: Precision, batch: int, storage: str
    ) -> None:
        self.precision, self.batch, self.storage = precision, batch, storage
        self.file = LiteFile([], [], [], [])
        self.nodes = read_graph(model.get_config())
        self.layers = {operation.name: operation for operation in model.operations}
        self.place: dict[str, int] = {}

    def tensor(
        self, name: str, shape: tuple, dtype: str, grid: Grid | None = None, data: Any = None
    ) -> int:
        """Adds a tensor and returns its index."""
        made = Tensor(name, tuple(int(size) for size in shape), dtype, data=data)
        if grid is not None:
            made.scales = np.array([grid[0]], np.float32)
            made.zero_points = np.array([grid[1]], np.int64)
        self.file.tensors.append(made)
        return len(self.file.tensors) - 1

    def constant(self, name: str, values: Any) -> int:
        """Adds whole numbers that an operation reads and returns their index."""
        data = np.asarray(values, np.int32)
        return self.tensor(name, data.shape, "int32", data=data)

    def add(self, kind: str, inputs: list[int], output: int, options: dict[str, Any]) -> int:
        """Adds an operation and returns the index of its output."""
        version = _VERSIONS.get(kind, 1)
        self.file.operations.append(Operation(kind, inputs, [output], options, version))
        return output

    def grid_of(self, index: int) -> Grid:
        """Returns scale and zero point of a tensor."""
        tensor = self.file.tensors[index]
        return tensor.scale, tensor.zero_point

    def onto(self, index: int, grid: Grid, name: str) -> int:
        """Returns a tensor on a grid, rounded to it once more where it is on another."""
        source = self.file.tensors[index]
        if source.dtype != "float32" and self.grid_of(index) == grid:
            return index
        made = self.tensor(name, source.shape, "int8", grid)
        if source.dtype != "int8":
            return self.add("QUANTIZE", [index], made, {})
        return self.times(1.0, index, made)

    def in_float(self, index: int) -> int:
        """Returns the floats that a tensor stands for."""
        source = self.file.tensors[index]
        if not len(source.scales):
            return index
        made = self.tensor(f"{source.name}/float", source.shape, "float32")
        return self.add("DEQUANTIZE", [index], made, {})

    def times(self, factor: float, source: int, output: int, activation: int = 0) -> int:
        """Writes a tensor times a number, on the grid of the output, and returns its index.

        XNNPACK's QUANTIZE and LEAKY_RELU multiply by whole 256ths; its MUL by a float32.
        """
        name, grid = self.file.tensors[output].name, (np.float32(abs(factor) / LEVEL), 0)
        data = np.array([LEVEL if factor > 0 else -LEVEL], np.int8)
        constant = self.tensor(f"{name}/factor", (1,), "int8", grid, data)
        options = {"fusedActivationFunction": activation}
        return self.add("MUL", [source, constant], output, options)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a layer's outputs, batch included."""
        return (self.batch, *self.layers[name].output.shape[1:])

    def grid_after(self, name: str) -> Grid:
        """Returns the grid that a layer's outputs are stored on: that of the quantizer behind."""
        (reader,) = self.nodes[name].consumers
        layer = self.layers[reader]
        if not isinstance(layer, ActivationQuantizer):
            return self.grid_after(reader)
        return self.grid_of_quantizer(layer)

    def grid_of_quantizer(self, layer: ActivationQuantizer) -> Grid:
        """Returns scale and zero point of a quantizer in the pass."""
        scale, zero_point, _ = layer.parameters(self.precision)
        return np.float32(scale), int(zero_point) - OFFSET

    def clipping(self, layer: Any, output: int) -> int:
        """Returns the activation that an operation takes for a ReLU of what it writes."""
        scale, zero_point = self.grid_of(output)
        # A grid that ends where the function does clips as it does.
        needed = zero_point > -OFFSET or (layer.max_value or np.inf) < 254.5 * scale
        return _RELU[layer.max_value] if needed else 0

    def output(self, layer: Any) -> int:
        """Adds the tensor of a layer's outputs on the grid behind it."""
        return self.tensor(layer.name, self.shape(layer.name), "int8", self.grid_after(layer.name))

    def kept(self, layer: Any, source: int) -> int:
        """Adds the tensor of a layer's outputs on the grid of its input."""
        return self.tensor(layer.name, self.shape(layer.name), "int8", self.grid_of(source))
