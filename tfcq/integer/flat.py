"""A model as one flat graph of the few kinds of layers that integer runtimes have.

Nested models are opened, a layer that is called twice becomes two, what does nothing in inference
is gone, activation functions stand behind their layer, and each multiplication and addition by
constants of the channels is a `ChannelAffine`, which `folded` makes part of a kernel.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from tfcq.errors import UserError
from tfcq.integer.kernels.products import SAME, paddings
from tfcq.integer.layers import ChannelAffine, gelu_tanh
from tfcq.integer.operations import lack
from tfcq.integer.recognized import activation_name, constants_of, function_of
from tfcq.integer.replay import replayed
from tfcq.integer.rewrites import REWRITES
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.cloning import free_name, same_layer
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.float_model import float_layer
from tfcq.nn.layer_bits import left_in_float
from tfcq.nn.layers import FLOAT_COUNTERPARTS, QUANTIZED_COUNTERPARTS
from tfcq.settings.policies import INT8, Policy

# Of `keras.activations.leaky_relu`.
_LEAKY_SLOPE = 0.2
_IDLE = (
    ActivationQuantizer, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D,
    layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.Identity,
    layers.ActivityRegularization,
)  # fmt: skip


class Flattening:
    """Makes the flat model; `origins` says whose values each of its layers returns.

    Args:
        model: a functional model, quantizable or not.
        policy: layers that it leaves in float by name are kept as they are.
    """

    def __init__(self, model: keras.Model, policy: Policy = INT8) -> None:
        self.policy = policy
        # Names of layers that are kept in float.
        self.floats: set[str] = set()
        self.names: set[str] = set()
        self.weights: list[tuple[Any, list[np.ndarray]]] = []
        # By the name of a new layer: the layer of `model` with the same outputs, and that whose
        # kernel it has.
        self.origins: dict[str, str] = {}
        self.kernels: dict[str, Any] = {}
        # The model's quantizer behind the outputs of a new layer.
        self.quantizers: dict[str, ActivationQuantizer] = {}
        # By the name of a layer that pads: what it pads, and by how much.
        self.padded: dict[str, tuple[Any, Any]] = {}
        check_one_input(model)
        source = model.inputs[0]
        inputs = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
        self.names.add(source.name)
        outputs = replayed(model, keras.tree.pack_sequence_as(model.input, [inputs]), self._call)
        self.model = keras.Model(inputs, outputs, name=model.name)
        for layer, weights in self.weights:
            give_weights(layer, weights)

    def add(
        self,
        layer: Any,
        *inputs: Any,
        weights: list[np.ndarray] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Any:
        """Returns what a new layer, under a free name, makes of inputs.

        Args:
            layer: a layer of float32.
            *inputs: what it is called with.
            weights: its weights.
            settings: what else it is called with, by name.
        """
        layer.name = free_name(layer.name, self.names)
        self.names.add(layer.name)
        if weights:
            self.weights.append((layer, weights))
        return layer(*inputs, **(settings or {}))

    def _call(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        outputs = self._converted(operation, args, kwargs)
        # A quantizer is known by the layer before it, a nested model by the layers in it.
        unnamed = isinstance(operation, (ActivationQuantizer, keras.Model))
        named = [] if unnamed else keras.tree.flatten(outputs)
        for tensor in named:
            self.origins[_producer(tensor)] = operation.name
        return outputs

    def _converted(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        kind, name = type(operation).__name__, operation.name
        if isinstance(operation, keras.Model):
            return replayed(operation, args[0], self._call)
        if isinstance(operation, ActivationQuantizer):
            self.quantizers[_producer(args[0])] = operation
        if left_in_float(name, self.policy) and _holds_weights(operation):
            return self._float(operation, args, kwargs)
        if isinstance(operation, _IDLE) or kind.startswith("Random") or kind == "StochasticDepth":
            return args[0]
        if type(operation) in FLOAT_COUNTERPARTS or type(operation) in QUANTIZED_COUNTERPARTS:
            return self._kernel(operation, args[0])
        if isinstance(operation, layers.SeparableConv2D):
            return self._separable(operation, args[0])
        if (constants := constants_of(operation, args)) is not None:
            return self.affine(name, *constants)
        if (function := function_of(operation)) is not None:
            return self.activated(args[0], function, name)
        rewrite = REWRITES.get(kind)
        made = rewrite(self, operation, args, kwargs) if rewrite else None
        return self._same(operation, args, kwargs) if made is None else made

    def _float(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        plain = float_layer(layer, dtype="float32")
        # A learned scale of a quantized kernel stands behind the layer's own weights.
        count = 2 if type(layer) in FLOAT_COUNTERPARTS else None
        outputs = self.add(plain, *args, weights=layer.get_weights()[:count], settings=kwargs)
        self.floats.add(plain.name)
        return outputs

    def _same(self, operation: Any, args: tuple, kwargs: dict) -> Any:
        if isinstance(operation, layers.Layer):
            copy = same_layer(operation, {**operation.get_config(), "dtype": "float32"})
            weights = operation.get_weights()
        else:
            copy, weights = same_layer(operation), None
        outputs = self.add(copy, *args, weights=weights, settings=kwargs)
        # What runtimes have as integers loses nothing, and stays so.
        if left_in_float(operation.name, self.policy) and lack(copy):
            self.floats.add(copy.name)
        return outputs

    def _kernel(self, layer: Any, x: Any) -> Any:
        changes: dict[str, Any] = {"activation": "linear", "dtype": "float32"}
        if getattr(layer, "lora_enabled", False):
            # Its `kernel` is the sum already.
            changes["lora_rank"] = None
        if (unpadded := self._unpadded(layer, x)) is not None:
            x, changes["padding"] = unpadded, "same"
        weights = [np.asarray(w) for w in (layer.kernel, layer.bias) if w is not None]
        plain = float_layer(layer, **changes)
        x = self.add(plain, x, weights=weights)
        self.kernels[plain.name] = layer
        return self.activated(x, layer.activation, f"{layer.name}_activation")

    def _unpadded(self, layer: Any, x: Any) -> Any:
        """Returns what was padded by a layer of its own, where a kernel pads by as much of itself.

        None where it does not. A layer of its own is a pass over the whole map.
        """
        name = _producer(x)
        if name in self.quantizers or getattr(layer, "padding", None) != "valid":
            return None
        before, around = self.padded.get(name, (None, None))
        if before is None or None in before.shape[1:3]:
            return None
        needed = paddings(
            SAME, before.shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate
        )
        return before if needed == [tuple(pair) for pair in around] else None

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
        self.kernels |= {depthwise.name: layer, pointwise.name: layer}
        return self.activated(x, layer.activation, f"{layer.name}_activation")

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

    def activated(self, x: Any, function: Any, name: str) -> Any:
        """Returns what an activation function makes of a tensor, in layers that runtimes have.

        Args:
            x: the tensor.
            function: the function, or Keras's name of it.
            name: what its layer is called.
        """
        known = function if isinstance(function, str) else activation_name(function)
        if known is None:
            return self.add(layers.Activation(function, name=name, dtype="float32"), x)
        function = known
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
        made = gelu_tanh if function == "gelu_tanh" else function
        return self.add(layers.Activation(made, name=name, dtype="float32"), x)


def _holds_weights(operation: Any) -> bool:
    """Whether a layer can lose by integers, and is not part of a kernel before it."""
    held = bool(getattr(operation, "weights", []))
    return held and not isinstance(operation, (layers.BatchNormalization, *_IDLE))


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
