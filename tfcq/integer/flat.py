"""A model as one flat graph of the few kinds of layers that integer runtimes have.

Nested models are opened, a layer that is called twice becomes two, what does nothing in inference
is gone, activation functions stand behind their layer, and each multiplication and addition by
constants of the channels is a `ChannelAffine`, which `folded` makes part of a kernel.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcq.errors import UserError
from tfcq.integer.layers import gelu_tanh
from tfcq.integer.replay import replayed
from tfcq.integer.transformers import SPECIAL
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import free_name, same_layer
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.float_model import float_layer
from tfcq.nn.layers import FLOAT_COUNTERPARTS, QUANTIZED_COUNTERPARTS

# Of `keras.activations.leaky_relu`.
_LEAKY_SLOPE = 0.2
_IDLE = (
    ActivationQuantizer, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D,
    layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.Identity,
    layers.ActivityRegularization,
)  # fmt: skip
_SAME_FUNCTION = {
    "swish": "silu", "hard_swish": "hard_silu", "Relu": "relu", "Relu6": "relu6", "Elu": "elu",
    "Sigmoid": "sigmoid", "Silu": "silu", "HardSilu": "hard_silu", "HardSwish": "hard_silu",
    "HardSigmoid": "hard_sigmoid", "Gelu": "gelu", "Tanh": "tanh", "Softmax": "softmax",
    "LeakyRelu": "leaky_relu", "Swish": "silu",
}  # fmt: skip


@keras.saving.register_keras_serializable("tfcq")
class ChannelAffine(layers.Layer):
    """Multiplies by and adds a number for each channel, the last axis.

    Args:
        **kwargs: as for `keras.layers.Layer`.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `factor` and `shift`.

        Args:
            input_shape: shape of the inputs.
        """
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        """Returns `inputs * factor + shift`."""
        return inputs * self.factor + self.shift


@keras.saving.register_keras_serializable("tfcq")
class Slices(layers.Layer):
    """Takes every so many values between two bounds along each axis behind the batch.

    Args:
        bounds: start, end and step of each axis, as a slice has them.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, bounds: list[tuple[int | None, int | None, int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bounds = [tuple(one) for one in bounds]

    def slices(self) -> list[slice]:
        """Returns the slices, that of the batch among them."""
        return [slice(None), *(slice(*one) for one in self.bounds)]

    def call(self, inputs: Any) -> Any:
        """Returns the values."""
        return inputs[tuple(self.slices())]

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration."""
        return {**super().get_config(), "bounds": self.bounds}


class Flattening:
    """Makes the flat model; `origins` says whose values each of its layers returns.

    Args:
        model: a functional model, quantizable or not.
    """

    def __init__(self, model: keras.Model) -> None:
        self.names: set[str] = set()
        self.weights: list[tuple[Any, list[np.ndarray]]] = []
        # By the name of a new layer: the layer of `model` with the same outputs, and that whose
        # kernel it has.
        self.origins: dict[str, str] = {}
        self.kernels: dict[str, Any] = {}
        # The model's quantizer behind the outputs of a new layer.
        self.quantizers: dict[str, ActivationQuantizer] = {}
        check_one_input(model)
        source = model.inputs[0]
        inputs = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
        self.names.add(source.name)
        outputs = replayed(model, keras.tree.pack_sequence_as(model.input, [inputs]), self._call)
        self.model = keras.Model(inputs, outputs, name=model.name)
        for layer, weights in self.weights:
            give_weights(layer, weights)

    def add(self, layer: Any, *inputs: Any, weights: list[np.ndarray] | None = None) -> Any:
        """Returns what a new layer, under a free name, makes of inputs.

        Args:
            layer: a layer of float32.
            *inputs: what it is called with.
            weights: its weights.
        """
        layer.name = free_name(layer.name, self.names)
        self.names.add(layer.name)
        if weights is not None:
            self.weights.append((layer, weights))
        return layer(*inputs)

    def _call(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        outputs = self._converted(operation, args, kwargs)
        # A quantizer is known by the layer before it.
        named = [] if isinstance(operation, ActivationQuantizer) else keras.tree.flatten(outputs)
        for tensor in named:
            self.origins[_producer(tensor)] = operation.name
        return outputs

    def _converted(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        kind, name = type(operation).__name__, operation.name
        if isinstance(operation, keras.Model):
            return replayed(operation, args[0], self._call)
        if isinstance(operation, ActivationQuantizer):
            self.quantizers[_producer(args[0])] = operation
        if isinstance(operation, _IDLE) or kind.startswith("Random") or kind == "StochasticDepth":
            return args[0]
        if type(operation) in FLOAT_COUNTERPARTS or type(operation) in QUANTIZED_COUNTERPARTS:
            return self._kernel(operation, args[0])
        if isinstance(operation, layers.SeparableConv2D):
            return self._separable(operation, args[0])
        constants = _constants(operation, kind, args)
        if constants is not None:
            return self.affine(name, *constants)
        function = _function(operation, kind)
        if function is not None:
            return self.activated(args[0], function, name)
        special = _SPECIAL.get(kind)
        made = special(self, operation, args, kwargs) if special else None
        return self._same(operation, args, kwargs) if made is None else made

    def _same(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        if isinstance(operation, layers.Layer):
            copy = same_layer(operation, {**operation.get_config(), "dtype": "float32"})
        else:
            copy = same_layer(operation)
        copy.name = free_name(operation.name, self.names)
        self.names.add(copy.name)
        weights = getattr(operation, "weights", [])
        if weights:
            self.weights.append((copy, operation.get_weights()))
        return copy(*args, **kwargs)

    def _kernel(self, layer: Any, x: Any) -> Any:
        changes: dict[str, Any] = {"activation": "linear", "dtype": "float32"}
        if getattr(layer, "lora_enabled", False):
            # Its `kernel` is the sum already.
            changes["lora_rank"] = None
        weights = [np.asarray(w) for w in (layer.kernel, layer.bias) if w is not None]
        plain = float_layer(layer, **changes)
        x = self.add(plain, x, weights=weights)
        self.kernels[plain.name] = layer
        return self.activated(x, _activation_name(layer), f"{layer.name}_activation")

    def _separable(self, layer: Any, x: Any) -> Any:
        places = {key: getattr(layer, key) for key in ("strides", "padding", "dilation_rate")}
        depthwise = layers.DepthwiseConv2D(
            layer.kernel_size, depth_multiplier=layer.depth_multiplier, use_bias=False,
            name=f"{layer.name}_depthwise", dtype="float32", **places,
        )  # fmt: skip
        x = self.add(depthwise, x, weights=[np.asarray(layer.depthwise_kernel)])
        pointwise = layers.Conv2D(
            layer.filters, 1, use_bias=layer.use_bias, name=layer.name, dtype="float32"
        )
        kernel = [layer.pointwise_kernel, layer.bias]
        weights = [np.asarray(w) for w in kernel if w is not None]
        x = self.add(pointwise, x, weights=weights)
        return self.activated(x, _activation_name(layer), f"{layer.name}_activation")

    def affine(self, name: str, x: Any, factor: Any, shift: Any) -> Any:
        """Returns a tensor times a factor plus a shift.

        Args:
            name: what the layer is called.
            x: the tensor.
            factor: a number for all, or one for each channel.
            shift: as `factor`.
        """
        channels = x.shape[-1]
        values = [np.broadcast_to(np.ravel(v), (channels,)) for v in (factor, shift)]
        return self.add(ChannelAffine(name=name, dtype="float32"), x, weights=values)

    def activated(self, x: Any, function: str, name: str) -> Any:
        """Returns what an activation function makes of a tensor, in layers that runtimes have.

        Args:
            x: the tensor.
            function: Keras's name of the function.
            name: what its layer is called.
        """
        if function == "linear":
            return x
        if function in ("relu", "relu6"):
            highest = 6.0 if function == "relu6" else None
            return self.add(layers.ReLU(highest, name=name, dtype="float32"), x)
        if function in ("silu", "hard_silu"):
            # HARD_SWISH exists and rounds to 15 bits on its way, in other ways than all others.
            gate = self.activated(x, function.replace("silu", "sigmoid"), f"{name}_gate")
            return self.add(layers.Multiply(name=name, dtype="float32"), [x, gate])
        if function == "hard_sigmoid":
            x = self.affine(f"{name}_line", x, 1 / 6, 0.5)
            return self.add(layers.ReLU(1.0, name=name, dtype="float32"), x)
        if function == "leaky_relu":
            return self.add(layers.LeakyReLU(_LEAKY_SLOPE, name=name, dtype="float32"), x)
        known = gelu_tanh if function == "gelu_tanh" else function
        return self.add(layers.Activation(known, name=name, dtype="float32"), x)


def check_one_input(model: keras.Model) -> None:
    """Refuses a model whose graph cannot be read, or that takes more than images.

    Args:
        model: the model.

    Raises:
        UserError: when it is not functional or has several inputs.
    """
    config = model.get_config() if isinstance(model, keras.Model) else {}
    if not {"layers", "input_layers"} <= set(config) or len(model.inputs) != 1:
        raise UserError(
            f"Model {model.name!r} cannot be folded; allowed: a functional model with one input."
        )


def _producer(tensor: Any) -> str:
    """Returns the name of the operation that a symbolic tensor comes from."""
    config = keras.saving.serialize_keras_object(tensor)["config"]
    return config["keras_history"][0]


def _activation_name(layer: Any) -> str:
    function = layer.activation
    name = getattr(function, "__name__", type(function).__name__)
    return _SAME_FUNCTION.get(name, name)


def _function(operation: Any, kind: str) -> str | None:
    """Returns the activation function that an operation is; None for another one."""
    if kind == "Activation":
        return _activation_name(operation)
    if kind == "ReLU":
        plain = not operation.negative_slope and not operation.threshold
        known = {None: "relu", 6: "relu6"}
        return known.get(operation.max_value) if plain else None
    if kind == "Softmax" and isinstance(operation, layers.Layer):
        return "softmax" if operation.axis == -1 else None
    if kind == "LeakyRelu":
        return None
    if kind == "Gelu" and operation.approximate:
        return "gelu_tanh"
    return _SAME_FUNCTION.get(kind) if not isinstance(operation, layers.Layer) else None


def _constants(operation: Any, kind: str, args: tuple) -> tuple[Any, Any, Any] | None:
    """Returns a tensor and its factor and shift by channel; None for another operation."""
    one = np.float64(1)
    if kind == "ChannelAffine":
        return args[0], np.asarray(operation.factor), np.asarray(operation.shift)
    if kind == "Rescaling":
        return _if_channels(args[0], operation.scale, operation.offset)
    if kind == "Normalization" and not operation.invert:
        mean, variance = (np.asarray(v, np.float64) for v in (operation.mean, operation.variance))
        factor = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        return _if_channels(args[0], factor, -mean * factor)
    if kind == "BatchNormalization" and operation.axis in (-1, len(operation.output.shape) - 1):
        factor = 1 / np.sqrt(np.asarray(operation.moving_variance, np.float64) + operation.epsilon)
        factor = factor * np.asarray(operation.gamma, np.float64) if operation.scale else factor
        shift = np.asarray(operation.beta, np.float64) if operation.center else 0.0
        return args[0], factor, shift - np.asarray(operation.moving_mean, np.float64) * factor
    arithmetic = kind in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")
    if not arithmetic or isinstance(operation, layers.Layer):
        return None
    held = [isinstance(value, keras.KerasTensor) for value in args]
    if all(held) or not any(held):
        return None
    x, number = args if held[0] else args[::-1]
    number = np.asarray(number, np.float64)
    pairs = {
        "Add": (one, number),
        "Multiply": (number, 0 * number),
        "Subtract": (one, -number) if held[0] else (-one, number),
    }
    if held[0] and kind in ("Divide", "TrueDivide"):
        pairs[kind] = (1 / number, 0 * number)
    return _if_channels(x, *pairs[kind]) if kind in pairs else None


def _if_channels(x: Any, factor: Any, shift: Any) -> tuple[Any, Any, Any] | None:
    """Returns them where they are one number for all, or one for each of the last axis."""
    fits = all(np.size(v) in (1, x.shape[-1]) and np.shape(v)[-1:] in ((), (1,), (np.size(v),))
               for v in (factor, shift))  # fmt: skip
    return (x, np.asarray(factor, np.float64), np.asarray(shift, np.float64)) if fits else None


def _mean(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Means over a whole image; over one pixel they change nothing but the shape."""
    x = args[0]
    if isinstance(operation, layers.Layer):
        keeps = operation.keepdims
    else:
        axes = [axis % len(x.shape) for axis in np.ravel(operation.axis)]
        if len(x.shape) != 4 or axes != [1, 2]:
            return None
        keeps = operation.keepdims
    shape = (1, 1, x.shape[-1]) if keeps else (x.shape[-1],)
    if tuple(x.shape[1:3]) == (1, 1):
        return flat.add(layers.Reshape(shape, name=operation.name, dtype="float32"), x)
    pooled = layers.GlobalAveragePooling2D(keepdims=keeps, name=operation.name, dtype="float32")
    return flat.add(pooled, x)


def _average_pool(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    """As a convolution, whose result has a scale of its own, where no border counts less."""
    if operation.padding != "valid":
        return None
    size = operation.pool_size
    pool = layers.DepthwiseConv2D(
        size, strides=operation.strides, use_bias=False, name=operation.name, dtype="float32"
    )
    weights = np.full((*size, args[0].shape[-1], 1), 1 / np.prod(size))
    return flat.add(pool, args[0], weights=[weights])


def _average(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    parts = list(args[0])
    total = _sum(flat, parts, f"{operation.name}_sum")
    return flat.affine(operation.name, total, 1 / len(parts), 0.0)


def _sum(flat: Flattening, parts: list[Any], name: str) -> Any:
    """Sums of more than two, one after the other, as runtimes have sums of two."""
    total = parts[0]
    for part in parts[1:]:
        total = flat.add(layers.Add(name=name, dtype="float32"), [total, part])
    return total


def _add_layer(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    parts = list(args[0]) if isinstance(operation, layers.Layer) else list(args)
    return _sum(flat, parts, operation.name)


def _pair(kind: type) -> Callable[..., Any]:
    def make(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
        parts = list(args[0]) if isinstance(operation, layers.Layer) else list(args)
        if len(parts) != 2 or any(not isinstance(p, keras.KerasTensor) for p in parts):
            return None
        return flat.add(kind(name=operation.name, dtype="float32"), parts)

    return make


def _scaled_sum(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    """The residual sums of `keras.applications.InceptionResNetV2`."""
    first, second = args[0]
    second = flat.affine(f"{operation.name}_scaled", second, operation.scale, 0.0)
    return _sum(flat, [first, second], operation.name)


def _leaky(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    slope = operation.negative_slope
    if not slope:
        return flat.activated(args[0], "relu", operation.name)
    return flat.add(layers.LeakyReLU(slope, name=operation.name, dtype="float32"), args[0])


def _prelu(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    """As relu(x) - slopes * relu(-x), where each channel has one slope."""
    slopes = np.asarray(operation.alpha)
    if np.size(slopes) not in (1, args[0].shape[-1]):
        return None
    below = flat.affine(f"{operation.name}_negated", args[0], -1.0, 0.0)
    below = flat.activated(below, "relu", f"{operation.name}_below")
    below = flat.affine(f"{operation.name}_scaled", below, -slopes, 0.0)
    above = flat.activated(args[0], "relu", f"{operation.name}_above")
    return _sum(flat, [above, below], operation.name)


def _items(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
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
    return flat.add(
        layers.Reshape(operation.output.shape[1:], name=operation.name, dtype="float32"), x
    )


def _reshaped(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    if isinstance(operation, layers.Layer):
        return None
    return flat.add(
        layers.Reshape(operation.output.shape[1:], name=operation.name, dtype="float32"), args[0]
    )


def _permuted(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    axes = operation.axes
    if axes is None or axes[0] != 0:
        return None
    return flat.add(layers.Permute(tuple(axes[1:]), name=operation.name, dtype="float32"), args[0])


def _cropped(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    before, after = operation.cropping
    bounds = [(before, args[0].shape[1] - after, 1), (None, None, 1)]
    return flat.add(Slices(bounds, name=operation.name, dtype="float32"), args[0])


def _layer_scale(flat: Flattening, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Of `keras.applications.ConvNeXtTiny` and its like."""
    return flat.affine(operation.name, args[0], np.asarray(operation.gamma), 0.0)


_SPECIAL: dict[str, Callable[..., Any]] = {
    **SPECIAL,
    "Cropping1D": _cropped,
    "LayerScale": _layer_scale,
    "GlobalAveragePooling2D": _mean,
    "Mean": _mean,
    "AveragePooling2D": _average_pool,
    "Average": _average,
    "Add": _add_layer,
    "Subtract": _pair(layers.Subtract),
    "Multiply": _pair(layers.Multiply),
    "CustomScaleLayer": _scaled_sum,
    "LeakyReLU": _leaky,
    "LeakyRelu": _leaky,
    "PReLU": _prelu,
    "GetItem": _items,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "ExpandDims": _reshaped,
    "Transpose": _permuted,
}
