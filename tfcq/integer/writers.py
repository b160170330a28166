"""How each layer of an integer form is written as operations of a TFLite file."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.integer.writer import LEVEL, OFFSET, Writer
from tfcq.quantization.precision import Precision

_PADDING = {"same": 0, "valid": 1}
FUNCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("LOGISTIC", {}),
    "tanh": ("TANH", {}),
    "softmax": ("SOFTMAX", {"beta": 1.0}),
    "elu": ("ELU", {}),
    "gelu": ("GELU", {"approximate": False}),
    "gelu_tanh": ("GELU", {"approximate": True}),
}


def _images(writer: Writer, layer: Any, inputs: list[int]) -> int:
    """Pixels as cameras and files hold them, from 0 to 255 for 0 to 1; else floats."""
    (grid_layer,) = writer.nodes[layer.name].consumers
    grid = writer.grid_after(layer.name)
    shape = writer.shape(layer.name)
    if writer.layers[grid_layer].quantizer.takes_range:
        pixels = writer.tensor(layer.name, shape, "float32")
    else:
        pixels = writer.tensor(layer.name, shape, "uint8", (grid[0], grid[1] + OFFSET))
    writer.file.inputs.append(pixels)
    return writer.onto(pixels, grid, grid_layer)


def integers(layer: Any, precision: Precision) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns the levels of a kernel, int8, their scales, float32, and the levels of the bias.

    They are those of the quantized pass itself.

    Args:
        layer: a layer with a quantized kernel, of a calibrated integer form.
        precision: the pass.

    Raises:
        UserError: when the kernel has more than 8 bits, or a bias is beyond what 32 bits hold.
    """
    kernel = tf.convert_to_tensor(layer.kernel)
    scale = layer.weight_quantizer.scale(
        kernel, precision.weight_bits, layer.kernel_axes, layer.learned_scale
    )
    levels = np.round(np.asarray(layer.quantized_kernel(precision) / scale)).astype(np.int64)
    if (largest := np.max(np.abs(levels))) > LEVEL:
        raise UserError(
            f"Layer {layer.name!r} has weights of level {largest}; allowed in int8: at most "
            f"{LEVEL}, as of 8 bits and fewer."
        )
    channels = np.asarray(scale, np.float32).ravel()
    if layer.bias is None:
        return levels.astype(np.int8), channels, None
    values, steps = layer.rounded_bias(precision)
    bias = np.round(np.asarray(values, np.float64).ravel() / np.asarray(steps, np.float64))
    if np.any(np.abs(bias) >= 2**31):
        raise UserError(
            f"A bias of layer {layer.name!r} is {np.max(np.abs(bias)):.2g} steps of its "
            "accumulator; allowed: below 2^31. Its kernel is next to nothing beside its bias."
        )
    return levels.astype(np.int8), channels, bias.astype(np.int32)


def _kernel(writer: Writer, layer: Any, inputs: list[int]) -> int:
    levels, scales, bias = integers(layer, writer.precision)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    convolution = depthwise or isinstance(layer, keras.layers.Conv2D)
    if depthwise:
        rows, columns, channels, multiplier = levels.shape
        levels, axis = levels.reshape(1, rows, columns, channels * multiplier), 3
    else:
        # Output channels come first.
        levels, axis = np.moveaxis(levels, -1, 0), 0
    # A layer may keep more bits than the pass.
    fits = writer.storage == "int8" or np.max(np.abs(levels)) < 8
    storage = writer.storage if fits else "int8"
    kernel = writer.tensor(f"{layer.name}/kernel", levels.shape, storage, data=levels)
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
        options["keepNumDims"] = len(writer.shape(layer.name)) > 2
    return writer.add(kind, [inputs[0], kernel, added], writer.output(layer), options)


def _plain(kind: str) -> Callable[[Writer, Any, list[int]], int]:
    """Returns what writes an operation of tensors alone, whose result has a grid of its own."""

    def write(writer: Writer, layer: Any, inputs: list[int]) -> int:
        return writer.add(kind, inputs, writer.output(layer), {"fusedActivationFunction": 0})

    return write


def _concatenation(writer: Writer, layer: Any, inputs: list[int]) -> int:
    output = writer.output(layer)
    grid = writer.grid_of(output)
    inputs = [
        writer.onto(index, grid, f"{layer.name}/{writer.file.tensors[index].name}")
        for index in inputs
    ]
    axis = layer.axis % len(layer.output.shape)
    options = {"axis": axis, "fusedActivationFunction": 0}
    return writer.add("CONCATENATION", inputs, output, options)


def _function(writer: Writer, layer: Any, inputs: list[int]) -> int:
    kind, options = FUNCTIONS[layer.activation.__name__]
    return writer.add(kind, inputs, writer.output(layer), dict(options))


def _leaky(writer: Writer, layer: Any, inputs: list[int]) -> int:
    """As the greater of values and values times the slope, whichever way each is rounded."""
    slope, output = float(layer.negative_slope), writer.output(layer)
    shape, grid = writer.file.tensors[output].shape, writer.grid_of(output)
    parts = [writer.tensor(f"{layer.name}/{n}", shape, "int8", grid) for n in ("rising", "falling")]
    writer.times(1.0, inputs[0], parts[0])
    writer.times(slope, inputs[0], parts[1])
    return writer.add("MAXIMUM" if slope <= 1 else "MINIMUM", parts, output, {})


def _relu(writer: Writer, layer: Any, inputs: list[int]) -> int:
    output = writer.output(layer)
    return writer.times(1.0, inputs[0], output, writer.clipping(layer, output))


def _mean(writer: Writer, layer: Any, inputs: list[int]) -> int:
    axes = writer.constant(f"{layer.name}/axes", [1, 2])
    options = {"keepDims": bool(layer.keepdims)}
    return writer.add("MEAN", [*inputs, axes], writer.output(layer), options)


def _mean_of_channels(writer: Writer, layer: Any, inputs: list[int]) -> int:
    axes = writer.constant(f"{layer.name}/axes", [len(layer.output.shape) - 1])
    return writer.add("MEAN", [*inputs, axes], writer.output(layer), {"keepDims": True})


def _product(writer: Writer, layer: Any, inputs: list[int]) -> int:
    options = {"adjX": False, "adjY": layer.transposed}
    return writer.add("BATCH_MATMUL", inputs, writer.output(layer), options)


def _rsqrt(writer: Writer, layer: Any, inputs: list[int]) -> int:
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


def _constant_sum(writer: Writer, layer: Any, inputs: list[int]) -> int:
    levels, scale = layer.levels()
    shape = (1, *levels.shape)
    constant = writer.tensor(
        f"{layer.name}/constant", shape, "int8", (scale, 0), levels.reshape(shape)
    )
    options = {"fusedActivationFunction": 0}
    return writer.add("ADD", [inputs[0], constant], writer.output(layer), options)


def _pool(kind: str) -> Callable[[Writer, Any, list[int]], int]:
    def write(writer: Writer, layer: Any, inputs: list[int]) -> int:
        options: dict[str, Any] = {"padding": _PADDING[layer.padding]}
        options["strideH"], options["strideW"] = layer.strides
        options["filterHeight"], options["filterWidth"] = layer.pool_size
        return writer.add(kind, inputs, writer.kept(layer, inputs[0]), options)

    return write


def _global_max(writer: Writer, layer: Any, inputs: list[int]) -> int:
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


def _reshape(writer: Writer, layer: Any, inputs: list[int]) -> int:
    output = writer.kept(layer, inputs[0])
    shape = list(writer.file.tensors[output].shape)
    size = writer.constant(f"{layer.name}/shape", shape)
    return writer.add("RESHAPE", [inputs[0], size], output, {"newShape": shape})


def _padding(writer: Writer, layer: Any, inputs: list[int]) -> int:
    first = layer.data_format == "channels_first"
    around = [layer.padding] if isinstance(layer, keras.layers.ZeroPadding1D) else layer.padding
    rows = [*around, (0, 0)] if not first else [(0, 0), *around]
    pads = writer.constant(f"{layer.name}/paddings", [(0, 0), *rows])
    return writer.add("PAD", [inputs[0], pads], writer.kept(layer, inputs[0]), {})


def _transpose(writer: Writer, layer: Any, inputs: list[int]) -> int:
    order = writer.constant(f"{layer.name}/order", [0, *layer.dims])
    return writer.add("TRANSPOSE", [inputs[0], order], writer.kept(layer, inputs[0]), {})


def _resize(writer: Writer, layer: Any, inputs: list[int]) -> int:
    size = writer.constant(f"{layer.name}/size", writer.shape(layer.name)[1:3])
    options = {"alignCorners": False, "halfPixelCenters": False}
    output = writer.kept(layer, inputs[0])
    return writer.add("RESIZE_NEAREST_NEIGHBOR", [inputs[0], size], output, options)


def _slice(writer: Writer, layer: Any, inputs: list[int], slices: list[slice]) -> int:
    shape = writer.file.tensors[inputs[0]].shape
    rows = [one.indices(size) for one, size in zip(slices, shape, strict=True)]
    # What ends before the first place, counted backwards, ends before none.
    masked = [index for index, (_, end, _) in enumerate(rows) if end < 0]
    named = zip(("begin", "end", "strides"), zip(*rows, strict=True), strict=True)
    bounds = [writer.constant(f"{layer.name}/{name}", values) for name, values in named]
    options = {"beginMask": 0, "endMask": sum(1 << index for index in masked)}
    output = writer.kept(layer, inputs[0])
    return writer.add("STRIDED_SLICE", [inputs[0], *bounds], output, options)


def _cropping(writer: Writer, layer: Any, inputs: list[int]) -> int:
    shape = writer.file.tensors[inputs[0]].shape
    rows = [slice(a, size - b) for (a, b), size in zip(layer.cropping, shape[1:3], strict=True)]
    return _slice(writer, layer, inputs, [slice(None), *rows, slice(None)])


WRITERS: dict[str, Callable[[Writer, Any, list[int]], int]] = {
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
