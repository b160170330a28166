"""Layers and operations written as others that integer runtimes have.

Each function takes a `Flattening`, the operation, and what it is called with, and returns its
outputs, or None for an operation that is kept as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcq.integer.layers import Slices
from tfcq.integer.recognized import are_of_channels, keeps_batch
from tfcq.integer.transformers import TRANSFORMERS

Rewrite = Callable[[Any, Any, tuple, dict], Any]


def _mean(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Means over a whole image; over one pixel they change nothing but the shape."""
    x = args[0]
    if getattr(operation, "data_format", None) == "channels_first":
        return None
    if not isinstance(operation, layers.Layer):
        axes = [axis % len(x.shape) for axis in np.ravel(operation.axis)]
        if len(x.shape) != 4 or axes != [1, 2]:
            return None
    if tuple(x.shape[1:3]) == (1, 1):
        return _reshape(flat, operation, x)
    keeps = operation.keepdims
    pooled = layers.GlobalAveragePooling2D(keepdims=keeps, name=operation.name, dtype="float32")
    return flat.add(pooled, x)


def _average_pool(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """As a convolution, whose result has a scale of its own, where no border counts less."""
    if operation.padding != "valid" or operation.data_format != "channels_last":
        return None
    size = operation.pool_size
    pool = layers.DepthwiseConv2D(
        size, strides=operation.strides, use_bias=False, name=operation.name, dtype="float32"
    )
    weights = np.full((*size, args[0].shape[-1], 1), 1 / np.prod(size))
    return flat.add(pool, args[0], weights=[weights])


def _average(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    if not isinstance(operation, layers.Layer):
        return None
    parts = list(args[0])
    total = _sum(flat, parts, f"{operation.name}_sum")
    return flat.affine(operation.name, total, 1 / len(parts), 0.0)


def _sum(flat: Any, parts: list[Any], name: str) -> Any:
    """Sums of more than two, one after the other, as runtimes have sums of two."""
    total = parts[0]
    for part in parts[1:]:
        total = flat.add(layers.Add(name=name, dtype="float32"), [total, part])
    return total


def _parts(operation: Any, args: tuple) -> list[Any]:
    """Returns the operands: a layer is called with a list of them, an operation with each."""
    return list(args[0] if isinstance(operation, layers.Layer) else args)


def _are_tensors(parts: Iterable[Any]) -> bool:
    """Whether none of the operands is a constant."""
    return all(isinstance(part, keras.KerasTensor) for part in parts)


def _add_layer(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    parts = _parts(operation, args)
    return _sum(flat, parts, operation.name) if _are_tensors(parts) else None


def _product(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Products of more than two, one after the other, too."""
    total, *others = _parts(operation, args)
    if not _are_tensors((total, *others)):
        return None
    for part in others:
        total = flat.add(layers.Multiply(name=operation.name, dtype="float32"), [total, part])
    return total


def _difference(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    parts = _parts(operation, args)
    if not _are_tensors(parts):
        return None
    return flat.add(layers.Subtract(name=operation.name, dtype="float32"), parts)


def _scaled_sum(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """The residual sums of `keras.applications.InceptionResNetV2`."""
    first, second = args[0]
    second = flat.affine(f"{operation.name}_scaled", second, operation.scale, 0.0)
    return _sum(flat, [first, second], operation.name)


def _leaky(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    slope = operation.negative_slope
    if not slope:
        return flat.activated(args[0], "relu", operation.name)
    return flat.add(layers.LeakyReLU(slope, name=operation.name, dtype="float32"), args[0])


def _relu(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """One with a slope alone, which others call leaky."""
    if operation.threshold or operation.max_value is not None:
        return None
    return _leaky(flat, operation, args, kwargs)


def _prelu(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """As relu(x) - slopes * relu(-x), where each channel has one slope."""
    slopes = np.asarray(operation.alpha)
    if not are_of_channels(args[0], slopes):
        return None
    below = flat.affine(f"{operation.name}_negated", args[0], -1.0, 0.0)
    below = flat.activated(below, "relu", f"{operation.name}_below")
    below = flat.affine(f"{operation.name}_scaled", below, -slopes, 0.0)
    above = flat.activated(args[0], "relu", f"{operation.name}_above")
    return _sum(flat, [above, below], operation.name)


def _items(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Slices; a single place of an axis is a slice of one, and axes go and come behind them."""
    x, key = args
    keys = [one for one in (key if isinstance(key, (tuple, list)) else [key]) if one is not None]
    rank = len(x.shape)
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        keys[place : place + 1] = [slice(None)] * (rank - len(keys) + 1)
    keys += [slice(None)] * (rank - len(keys))
    if keys[0] != slice(None):
        return None
    bounds = [
        (one.start, one.stop, one.step or 1) if isinstance(one, slice)
        else (one, one + 1 if one != -1 else None, 1)
        for one in keys[1:]
    ]  # fmt: skip
    x = flat.add(Slices(bounds, name=operation.name, dtype="float32"), x)
    if x.shape == operation.output.shape:
        return x
    return _reshape(flat, operation, x)


def _split(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """A slice for each part."""
    x, where = args[0], operation.indices_or_sections
    axis = operation.axis % len(x.shape)
    if not axis or x.shape[axis] is None:
        return None
    ends = [part.shape[axis] for part in operation.output]
    starts = np.cumsum([0, *ends]).tolist() if isinstance(where, int) else [0, *where]
    parts = []
    for start, size in zip(starts, ends, strict=False):
        bounds: list[tuple[int | None, int | None, int]] = [(None, None, 1)] * (len(x.shape) - 1)
        bounds[axis - 1] = (start, start + size, 1)
        parts.append(flat.add(Slices(bounds, name=operation.name, dtype="float32"), x))
    return parts


def _reshape(flat: Any, operation: Any, x: Any) -> Any:
    """Returns a tensor in the shape that an operation returns."""
    shape = operation.output.shape[1:]
    return flat.add(layers.Reshape(shape, name=operation.name, dtype="float32"), x)


def _reshaped(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    if isinstance(operation, layers.Layer) or not keeps_batch(operation):
        return None
    return _reshape(flat, operation, args[0])


def _permuted(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    x = args[0]
    axes = [axis % len(x.shape) for axis in operation.axes or ()]
    if not axes or axes[0]:
        return None
    return flat.add(layers.Permute(axes[1:], name=operation.name, dtype="float32"), x)


def _padded(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """A layer still, unless the kernel behind it takes it over."""
    if operation.data_format != "channels_last":
        return None
    copy = layers.ZeroPadding2D(operation.padding, name=operation.name, dtype="float32")
    outputs = flat.add(copy, args[0])
    flat.padded[copy.name] = args[0], operation.padding
    return outputs


def _cropped(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    before, after = operation.cropping
    bounds = [(before, args[0].shape[1] - after, 1), (None, None, 1)]
    return flat.add(Slices(bounds, name=operation.name, dtype="float32"), args[0])


def _layer_scale(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Of `keras.applications.ConvNeXtTiny` and its like."""
    return flat.affine(operation.name, args[0], np.asarray(operation.gamma), 0.0)


REWRITES: dict[str, Rewrite] = {
    **TRANSFORMERS,
    "Cropping1D": _cropped,
    "LayerScale": _layer_scale,
    "ZeroPadding2D": _padded,
    "GlobalAveragePooling2D": _mean,
    "Mean": _mean,
    "AveragePooling2D": _average_pool,
    "Average": _average,
    "Add": _add_layer,
    "Subtract": _difference,
    "Multiply": _product,
    "CustomScaleLayer": _scaled_sum,
    "LeakyReLU": _leaky,
    "ReLU": _relu,
    "Split": _split,
    "LeakyRelu": _leaky,
    "PReLU": _prelu,
    "GetItem": _items,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "ExpandDims": _reshaped,
    "Transpose": _permuted,
}
