"""From the integer form of a network to a TFLite file with just its integers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile, Operation, Tensor
from tfcq.integer.operations import fuses_relu
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import FLOAT_COUNTERPARTS
from tfcq.nn.placement import read_graph
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth

_PADDING = {"same": 0, "valid": 1}
_RELU = {None: 1, 1: 2, 6: 3}
# The zero point of uint8 levels as int8 has it.
_OFFSET = 128
_FUNCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("LOGISTIC", {}),
    "tanh": ("TANH", {}),
    "softmax": ("SOFTMAX", {"beta": 1.0}),
    "elu": ("ELU", {}),
    "gelu": ("GELU", {"approximate": False}),
}
# The version of a kernel from which on it takes int8, beyond the first.
_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5, "ADD": 2, "SUB": 2, "MUL": 2,
    "MEAN": 2, "QUANTIZE": 1, "DEQUANTIZE": 2, "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2, "PAD": 2,
    "CONCATENATION": 2, "LOGISTIC": 2, "TANH": 2, "SOFTMAX": 2, "TRANSPOSE": 2, "LEAKY_RELU": 2,
    "STRIDED_SLICE": 2, "RESIZE_NEAREST_NEIGHBOR": 2, "GELU": 2,
}  # fmt: skip

Grid = tuple[np.float32, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    """A file, and where in it the values of the form are.

    Args:
        file: the file.
        places: index of the tensor on each quantizer's grid, by the name of the quantizer's layer.
    """

    file: LiteFile
    places: dict[str, int]


def written(model: QuantizableModel, bits: BitWidth, batch: int = 1) -> Written:
    """Returns the file of a calibrated integer form at a bit-width of its weights.

    Args:
        model: what `tfcq.deployable` returned, calibrated.
        bits: bit-width of the weights, and 8 of the activations.
        batch: images that the file takes at once.

    Raises:
        UserError: without a fixed image size or on other activations than of 8 bits.
    """
    check_deployed(model)
    if bits.weights is None or not 2 <= bits.weights <= 8:
        raise UserError(f"Weights at {bits} cannot be deployed as integers; allowed: 2w8a to 8w8a.")
    if bits.activations != 8:
        raise UserError(
            f"Activations of {bits.activations} bits cannot be deployed; LiteRT has 8, such as "
            f"{bits.weights}w8a."
        )
    writer = _Writer(model, Precision(bits.weights, bits.activations), batch)
    places = {
        name: place
        for name, place in writer.place.items()
        if isinstance(writer.layers[name], ActivationQuantizer)
    }
    return Written(writer.file, places)


def check_deployed(model: keras.Model) -> None:
    """Refuses a model whose images have no fixed size.

    Args:
        model: the model.

    Raises:
        UserError: naming the shape.
    """
    if None in model.input_shape[1:]:
        raise UserError(
            f"Model {model.name!r} takes images of shape {model.input_shape[1:]}; allowed for "
            "deployment: a fixed shape."
        )


class _Writer:
    """Writes layer by layer; a layer's outputs are a tensor of the file, by the layer's name."""

    def __init__(self, model: QuantizableModel, precision: Precision, batch: int) -> None:
        self.precision, self.batch = precision, batch
        self.file = LiteFile([], [], [], [])
        self.nodes = read_graph(model.get_config())
        self.layers = {operation.name: operation for operation in model.operations}
        self.place: dict[str, int] = {}
        for name in self.nodes:
            self._write(name)
        for number, output in enumerate(keras.tree.flatten(model.output)):
            name = next(n for n, layer in self.layers.items() if layer.output is output)
            self._write_output(name, output, number)

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
        if self.grid_of(index) == grid:
            return index
        shape = self.file.tensors[index].shape
        return self.add("QUANTIZE", [index], self.tensor(name, shape, "int8", grid), {})

    def _shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *self.layers[name].output.shape[1:])

    def _grid_after(self, name: str) -> Grid:
        """Returns the grid that a layer's outputs are stored on: that of the quantizer behind."""
        (reader,) = self.nodes[name].consumers
        layer = self.layers[reader]
        if not isinstance(layer, ActivationQuantizer):
            return self._grid_after(reader)
        scale, zero_point, _ = layer.parameters(self.precision)
        return np.float32(scale), int(zero_point) - _OFFSET

    def _write(self, name: str) -> None:
        layer, node = self.layers[name], self.nodes[name]
        inputs = [self.place[producer] for producer in node.producers]
        if isinstance(layer, ActivationQuantizer):
            self.place[name] = inputs[0]
            return
        if node.kind == "ReLU" and fuses_relu(self.nodes[node.producers[0]].kind):
            self.place[name] = inputs[0]
            scale, zero_point = self.grid_of(inputs[0])
            # A grid that ends where the function does clips as it does.
            if zero_point > -_OFFSET or (layer.max_value or np.inf) < 254.5 * scale:
                (computed,) = [one for one in self.file.operations if one.outputs == inputs]
                computed.options["fusedActivationFunction"] = _RELU[layer.max_value]
            return
        write = _WRITERS["Kernel" if type(layer) in FLOAT_COUNTERPARTS else node.kind]
        self.place[name] = write(self, layer, inputs)

    def output(self, layer: Any) -> int:
        """Adds the tensor of a layer's outputs on the grid behind it."""
        return self.tensor(
            layer.name, self._shape(layer.name), "int8", self._grid_after(layer.name)
        )

    def kept(self, layer: Any, source: int) -> int:
        """Adds the tensor of a layer's outputs on the grid of its input."""
        return self.tensor(layer.name, self._shape(layer.name), "int8", self.grid_of(source))

    def _write_output(self, name: str, output: Any, number: int) -> None:
        # Named as the converter does, by whose numbers readers order outputs.
        made = self.tensor(f"output:{number}", (self.batch, *output.shape[1:]), "float32")
        self.file.outputs.append(self.add("DEQUANTIZE", [self.place[name]], made, {}))


def _images(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    """Pixels as cameras and files hold them, from 0 to 255 for 0 to 1."""
    (grid_layer,) = writer.nodes[layer.name].consumers
    grid = writer._grid_after(layer.name)
    shape = writer._shape(layer.name)
    pixels = writer.tensor(layer.name, shape, "uint8", (grid[0], grid[1] + _OFFSET))
    writer.file.inputs.append(pixels)
    return writer.onto(pixels, grid, grid_layer)


def integers(layer: Any, precision: Precision) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns the levels of a kernel, int8, their scales, float32, and the levels of the bias.

    They are those of the quantized pass itself.

    Args:
        layer: a layer with a quantized kernel, of a calibrated integer form.
        precision: the pass.

    Raises:
        UserError: when a bias is beyond what 32 bits hold.
    """
    kernel = tf.convert_to_tensor(layer.kernel)
    scale = layer.weight_quantizer.scale(
        kernel, precision.weight_bits, layer.kernel_axes, layer.learned_scale
    )
    levels = np.round(np.asarray(layer.quantized_kernel(precision) / scale)).astype(np.int64)
    if layer.bias is None:
        return levels.astype(np.int8), _by_channel(scale, layer), None
    values, steps = layer.rounded_bias(precision)
    bias = np.round(np.asarray(values, np.float64).ravel() / np.asarray(steps, np.float64))
    if np.any(np.abs(bias) >= 2**31):
        raise UserError(
            f"A bias of layer {layer.name!r} is {np.max(np.abs(bias)):.2g} steps of its "
            "accumulator; allowed: below 2^31. Its kernel is next to nothing beside its bias."
        )
    return levels.astype(np.int8), _by_channel(scale, layer), bias.astype(np.int32)


def _by_channel(scale: tf.Tensor, layer: Any) -> np.ndarray:
    return np.asarray(scale, np.float32).ravel()


def _kernel(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    levels, scales, bias = integers(layer, writer.precision)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    convolution = depthwise or isinstance(layer, keras.layers.Conv2D)
    if depthwise:
        rows, columns, channels, multiplier = levels.shape
        levels, axis = levels.reshape(1, rows, columns, channels * multiplier), 3
    else:
        # Output channels come first.
        levels, axis = np.moveaxis(levels, -1, 0), 0
    kernel = writer.tensor(f"{layer.name}/kernel", levels.shape, "int8", data=levels)
    writer.file.tensors[kernel].scales = scales
    writer.file.tensors[kernel].zero_points = np.zeros(len(scales), np.int64)
    writer.file.tensors[kernel].axis = axis if len(scales) > 1 else 0
    channels = levels.shape[axis]
    step = writer.file.tensors[inputs[0]].scale
    data = np.zeros(channels, np.int32) if bias is None else bias
    added = writer.tensor(f"{layer.name}/bias", (channels,), "int32", data=data)
    writer.file.tensors[added].scales = scales * step
    writer.file.tensors[added].zero_points = np.zeros(len(scales), np.int64)
    options: dict[str, Any] = {"fusedActivationFunction": 0}
    if convolution:
        options["padding"] = _PADDING[layer.padding]
        options["strideH"], options["strideW"] = layer.strides
        options["dilationHFactor"], options["dilationWFactor"] = layer.dilation_rate
    if depthwise:
        options["depthMultiplier"] = layer.depth_multiplier
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D" if convolution else "FULLY_CONNECTED"
    if kind == "FULLY_CONNECTED":
        options["keepNumDims"] = len(writer._shape(layer.name)) > 2
    return writer.add(kind, [inputs[0], kernel, added], writer.output(layer), options)


def _plain(kind: str) -> Callable[[_Writer, Any, list[int]], int]:
    """Returns what writes an operation of tensors alone, whose result has a grid of its own."""

    def write(writer: _Writer, layer: Any, inputs: list[int]) -> int:
        return writer.add(kind, inputs, writer.output(layer), {"fusedActivationFunction": 0})

    return write


def _concatenation(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    output = writer.output(layer)
    grid = writer.grid_of(output)
    inputs = [
        writer.onto(index, grid, f"{layer.name}/{writer.file.tensors[index].name}")
        for index in inputs
    ]
    axis = layer.axis % len(layer.output.shape)
    options = {"axis": axis, "fusedActivationFunction": 0}
    return writer.add("CONCATENATION", inputs, output, options)


def _function(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    kind, options = _FUNCTIONS[layer.activation.__name__]
    return writer.add(kind, inputs, writer.output(layer), dict(options))


def _leaky(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    options = {"alpha": float(layer.negative_slope)}
    return writer.add("LEAKY_RELU", inputs, writer.output(layer), options)


def _relu(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    """As a requantization: what the grid behind does not hold is clipped."""
    return writer.add("QUANTIZE", inputs, writer.output(layer), {})


def _mean(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    axes = writer.constant(f"{layer.name}/axes", [1, 2])
    options = {"keepDims": bool(layer.keepdims)}
    return writer.add("MEAN", [*inputs, axes], writer.output(layer), options)


def _mean_of_channels(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    axes = writer.constant(f"{layer.name}/axes", [len(layer.output.shape) - 1])
    return writer.add("MEAN", [*inputs, axes], writer.output(layer), {"keepDims": True})


def _product(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    options = {"adjX": False, "adjY": layer.transposed}
    return writer.add("BATCH_MATMUL", inputs, writer.output(layer), options)


def _rsqrt(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    grid = writer.grid_of(inputs[0])
    if steps := min(layer.steps(grid[0]), 255):
        # On one grid the sum is exact.
        epsilon = writer.tensor(
            f"{layer.name}/epsilon", (1,), "int8", grid, np.array([grid[1] + steps], np.int8)
        )
        shape = writer.file.tensors[inputs[0]].shape
        total = writer.tensor(f"{layer.name}/sum", shape, "int8", grid)
        inputs = [writer.add("ADD", [inputs[0], epsilon], total, {"fusedActivationFunction": 0})]
    return writer.add("RSQRT", inputs, writer.output(layer), {})


def _constant_sum(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    levels, scale = layer.levels()
    shape = (1, *levels.shape)
    constant = writer.tensor(
        f"{layer.name}/constant", shape, "int8", (scale, 0), levels.reshape(shape)
    )
    options = {"fusedActivationFunction": 0}
    return writer.add("ADD", [inputs[0], constant], writer.output(layer), options)


def _pool(kind: str) -> Callable[[_Writer, Any, list[int]], int]:
    def write(writer: _Writer, layer: Any, inputs: list[int]) -> int:
        options: dict[str, Any] = {"padding": _PADDING[layer.padding]}
        options["strideH"], options["strideW"] = layer.strides
        options["filterHeight"], options["filterWidth"] = layer.pool_size
        return writer.add(kind, inputs, writer.kept(layer, inputs[0]), options)

    return write


def _global_max(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    batch, rows, columns, channels = writer.file.tensors[inputs[0]].shape
    grid = writer.grid_of(inputs[0])
    pooled = writer.tensor(f"{layer.name}/pooled", (batch, 1, 1, channels), "int8", grid)
    options = {
        "padding": 1,
        "strideH": 1,
        "strideW": 1,
        "filterHeight": rows,
        "filterWidth": columns,
    }
    pooled = writer.add("MAX_POOL_2D", inputs, pooled, options)
    return pooled if layer.keepdims else _reshape(writer, layer, [pooled])


def _reshape(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    output = writer.kept(layer, inputs[0])
    shape = list(writer.file.tensors[output].shape)
    size = writer.constant(f"{layer.name}/shape", shape)
    return writer.add("RESHAPE", [inputs[0], size], output, {"newShape": shape})


def _padding(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    first = layer.data_format == "channels_first"
    around = [layer.padding] if isinstance(layer, keras.layers.ZeroPadding1D) else layer.padding
    rows = [*around, (0, 0)] if not first else [(0, 0), *around]
    pads = writer.constant(f"{layer.name}/paddings", [(0, 0), *rows])
    return writer.add("PAD", [inputs[0], pads], writer.kept(layer, inputs[0]), {})


def _transpose(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    order = writer.constant(f"{layer.name}/order", [0, *layer.dims])
    return writer.add("TRANSPOSE", [inputs[0], order], writer.kept(layer, inputs[0]), {})


def _resize(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    size = writer.constant(f"{layer.name}/size", writer._shape(layer.name)[1:3])
    options = {"alignCorners": False, "halfPixelCenters": False}
    output = writer.kept(layer, inputs[0])
    return writer.add("RESIZE_NEAREST_NEIGHBOR", [inputs[0], size], output, options)


def _slice(writer: _Writer, layer: Any, inputs: list[int], slices: list[slice]) -> int:
    shape = writer.file.tensors[inputs[0]].shape
    rows = [one.indices(size) for one, size in zip(slices, shape, strict=True)]
    # What ends before the first place, counted backwards, ends before none.
    masked = [index for index, (_, end, _) in enumerate(rows) if end < 0]
    named = zip(("begin", "end", "strides"), zip(*rows, strict=True), strict=True)
    bounds = [writer.constant(f"{layer.name}/{name}", values) for name, values in named]
    options = {"beginMask": 0, "endMask": sum(1 << index for index in masked)}
    output = writer.kept(layer, inputs[0])
    return writer.add("STRIDED_SLICE", [inputs[0], *bounds], output, options)


def _cropping(writer: _Writer, layer: Any, inputs: list[int]) -> int:
    shape = writer.file.tensors[inputs[0]].shape
    rows = [slice(a, size - b) for (a, b), size in zip(layer.cropping, shape[1:3], strict=True)]
    return _slice(writer, layer, inputs, [slice(None), *rows, slice(None)])


_WRITERS: dict[str, Callable[[_Writer, Any, list[int]], int]] = {
    "InputLayer": _images,
    "Kernel": _kernel,
    "Add": _plain("ADD"),
    "Subtract": _plain("SUB"),
    "Multiply": _plain("MUL"),
    "Concatenate": _concatenation,
    "Activation": _function,
    "LeakyReLU": _leaky,
    "ReLU": _relu,
    "GlobalAveragePooling2D": _mean,
    "GlobalMaxPooling2D": _global_max,
    "AveragePooling2D": _pool("AVERAGE_POOL_2D"),
    "MaxPooling2D": _pool("MAX_POOL_2D"),
    "Reshape": _reshape,
    "Flatten": _reshape,
    "ZeroPadding1D": _padding,
    "ZeroPadding2D": _padding,
    "MeanOfChannels": _mean_of_channels,
    "MatrixProduct": _product,
    "Rsqrt": _rsqrt,
    "ConstantSum": _constant_sum,
    "Permute": _transpose,
    "UpSampling2D": _resize,
    "Cropping2D": _cropping,
    "Slices": lambda writer, layer, inputs: _slice(writer, layer, inputs, layer.slices()),
}
