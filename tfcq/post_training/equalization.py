"""Cross-layer equalization: ranges of weights move from channel to channel, the function stays."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import check_quantizable
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import Graph, kernel_layers
from tfcq.quantization.minmax import MinMaxWeightQuantizer

# Layers f with f(s x) = s f(x) for s > 0 in each channel by itself.
_HOMOGENEOUS = (
    layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D, layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D,
    layers.Dropout, layers.SpatialDropout2D, layers.LeakyReLU, ActivationQuantizer,
)  # fmt: skip
_HOMOGENEOUS_FUNCTIONS = (keras.activations.linear, keras.activations.relu)


def equalize(model: QuantizableModel, iterations: int = 20) -> list[tuple[str, str]]:
    """Makes both kernels of each pair of layers use their ranges alike, channel by channel.

        s_i = sqrt(r1_i r2_i) / r2_i
        output i of the first layer <- output i / s_i        kernel 2, input i <- kernel 2 * s_i

    where r1_i is the largest magnitude that makes output i in the first kernel, times
    |gamma_i| / sqrt(variance_i + epsilon) of a batch norm behind it, and r2_i the largest that
    reads it in the second (Nagel et al. 2019, Eqs. 8 to 11). Through a batch norm the output is
    scaled by gamma and beta, else by kernel and bias. A pair is two convolutions or dense layers
    with nothing between them but a batch norm, ReLU and what else commutes with a positive factor,
    each read by the next alone. Channels where either range is zero stay. The float function is
    unchanged; activation ranges are not, and are emptied: calibrate afterwards.

    Args:
        model: a quantizable model with min-max weight quantizers, changed in place.
        iterations: how often all pairs are equalized in turn; chains of layers need several.

    Returns:
        The pairs, as names of first and second layer; empty where the model has none.

    Raises:
        UserError: on a float model, other weight quantizers, or iterations below 1.
    """
    check_quantizable(model)
    if iterations < 1:
        raise UserError(
            f"{iterations} iterations cannot be used; allowed: 1 and above. The nearest is 1."
        )
    for layer in kernel_layers(model):
        if not isinstance(layer.weight_quantizer, MinMaxWeightQuantizer):
            raise UserError(
                f"Layer {layer.name!r} keeps the scale of its weights "
                f"({type(layer.weight_quantizer).__name__}); allowed: 'minmax'. Equalize before "
                "scales are found."
            )
    pairs = list(_pairs(model))
    for _ in range(iterations):
        for first, norm, second in pairs:
            _equalize(first, norm, second)
    if pairs:
        _empty_ranges(model)
    return [(first.name, second.name) for first, _, second in pairs]


def _empty_ranges(model: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _empty_ranges(layer)
        elif isinstance(layer, ActivationQuantizer):
            layer.set_range(np.inf, -np.inf)


def _pairs(model: keras.Model) -> Iterator[tuple]:
    """Yields first layer, its batch norm or None, and second layer."""
    graph = Graph.of(model)
    outputs = {id(tensor) for tensor in model.outputs}
    called_once = {
        layer["name"]: len(layer["inbound_nodes"]) == 1 for layer in model.get_config()["layers"]
    }
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _pairs(layer)
        elif hasattr(layer, "weight_quantizer") and _is_plain(layer):
            norm, name = None, layer.name
            if layer.activation not in _HOMOGENEOUS_FUNCTIONS:
                continue
            while called_once[name] and len(graph.nodes[name].consumers) == 1:
                if id(graph.operations[name].output) in outputs:
                    break
                reader = graph.operations[graph.nodes[name].consumers[0]]
                if len(graph.nodes[reader.name].producers) != 1:
                    break
                if hasattr(reader, "weight_quantizer"):
                    if _reads_channels(reader) and called_once[reader.name]:
                        yield layer, norm, reader
                    break
                behind = graph.norm_behind(layer.name)
                if norm is None and behind is not None and behind is reader:
                    if not behind.scale or behind.axis not in (-1, len(behind.output.shape) - 1):
                        break
                    norm = behind
                elif not _commutes(reader):
                    break
                name = reader.name


def _is_plain(layer: keras.layers.Layer) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _reads_channels(layer: keras.layers.Layer) -> bool:
    """Whether each input channel has a slice of the kernel of its own."""
    return _is_plain(layer) and getattr(layer, "groups", 1) == 1


def _commutes(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.threshold
    if isinstance(layer, layers.Activation):
        return layer.activation in _HOMOGENEOUS_FUNCTIONS
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return isinstance(layer, _HOMOGENEOUS) and channels_last


def _largest(layer: keras.layers.Layer, of_inputs: bool) -> np.ndarray:
    """Returns the largest magnitude in the kernel for each input or output channel."""
    magnitude = np.abs(np.asarray(layer.kernel, np.float64))
    if isinstance(layer, layers.DepthwiseConv2D):
        magnitude = magnitude.max((0, 1))
        return magnitude.max(1) if of_inputs else magnitude.reshape(-1)
    axis = magnitude.ndim - (2 if of_inputs else 1)
    return magnitude.max(tuple(np.delete(np.arange(magnitude.ndim), axis)))


def _equalize(
    first: keras.layers.Layer,
    norm: keras.layers.BatchNormalization | None,
    second: keras.layers.Layer,
) -> None:
    ranges = [_largest(first, of_inputs=False), _largest(second, of_inputs=True)]
    if norm is not None:
        variance = np.asarray(norm.moving_variance, np.float64)
        ranges[0] *= np.abs(np.asarray(norm.gamma, np.float64)) / np.sqrt(variance + norm.epsilon)
    usable = (ranges[0] > 0) & (ranges[1] > 0)
    first_range, second_range = (np.where(usable, r, 1.0) for r in ranges)
    factor = np.sqrt(first_range * second_range) / second_range
    if norm is not None:
        scaled = [norm.gamma, norm.beta] if norm.center else [norm.gamma]
    else:
        scaled = [first.bias] if first.bias is not None else []
        kernel = np.asarray(first.kernel, np.float64)
        shape = kernel.shape[2:] if isinstance(first, layers.DepthwiseConv2D) else (-1,)
        first.kernel.assign(kernel / factor.reshape(shape))
    for weight in scaled:
        weight.assign(np.asarray(weight, np.float64) / factor)
    kernel = np.asarray(second.kernel, np.float64)
    # Inputs lie on the last axis but one, in depthwise kernels too.
    second.kernel.assign(kernel * factor[:, None])
