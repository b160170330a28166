"""Takes out the mean error that quantized weights and inputs bring into each layer's output."""

import keras
import numpy as np
import tensorflow as tf

from tfcq.nn.calibration import check_quantizable
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import Part, paired_parts, run
from tfcq.post_training.observation import check_images
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth


def correct_biases(
    model: QuantizableModel,
    reference: QuantizableModel,
    images: np.ndarray,
    bits: BitWidth,
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """Subtracts each output channel's mean error from the bias, layer after layer.

        error = mean (quantized layer's output) - r mean (float layer's output)
        bias <- bias - error

    with r = 1, or where a batch norm alone reads the output r = sqrt((v' + epsilon) / (v +
    epsilon)) of its variances v in the float network and v' in the quantized one: what is met is
    the mean behind the norm, whose statistics may have been re-estimated. All is taken

    over images and positions, before the activation function, each later layer with the earlier
    ones corrected (Nagel et al. 2019, Sec. 4.2 and Appendix D, "empirical bias correction"). A
    convolution is linear, so the mean output is that of the mean input. A layer without bias whose
    output a batch norm alone reads is corrected there, which is the same function:

        moving mean <- moving mean + error

    A layer with neither stays as it is, and is absent from the result. The float pass uses the new
    biases too: they belong to these bits.

    Args:
        model: a quantizable model with activation ranges, changed in place.
        reference: the model whose float pass is to be met, with the same layers; it may not share
            them.
        images: float array [count, height, width, channels].
        bits: bits of the quantized pass, both numbers.
        batch_size: images per pass; the result does not depend on it.

    Returns:
        The error that was subtracted, float64 [channels], by layer name.

    Raises:
        UserError: on a float model, models whose layers differ, bits that are float, no image,
            images with NaN or infinity, or a graph that cannot be cut (`graph.parts_of`).
    """
    for either in (model, reference):
        check_quantizable(either)
    check_images(images, batch_size)
    precision = Precision(bits.weights, bits.activations)
    inputs = targets = images
    errors = {}
    for part, original in paired_parts(model, reference):
        for layer, plain in zip(part.kernels, original.kernels, strict=True):
            norm, plain_norm = (
                part.graph.norm_behind(layer.name),
                original.graph.norm_behind(plain.name),
            )
            if layer.bias is None and norm is None:
                continue
            seen = run(part.until(layer.input), inputs, precision, batch_size)
            wanted = run(original.until(plain.input), targets, None, batch_size)
            kernel = layer.quantized_kernel(precision)
            error = _mean_output(layer, kernel, seen) + _shift(layer, norm)
            expected = _mean_output(plain, plain.kernel, wanted) + _shift(plain, plain_norm)
            error -= _scale(norm) / _scale(plain_norm) * expected
            if layer.bias is not None:
                layer.bias.assign(np.asarray(layer.bias, np.float64) - error)
            elif norm is not None:
                mean = norm.moving_mean
                mean.assign(np.asarray(mean, np.float64) + error)
            errors[layer.name] = error
        inputs, targets = (
            _next(part, inputs, precision, batch_size),
            _next(original, targets, None, batch_size),
        )
    return errors


def _next(part: Part, inputs: np.ndarray, precision: Precision | None, size: int) -> np.ndarray:
    return run(part.until(), inputs, precision, size)


def _mean_output(layer: keras.layers.Layer, kernel: tf.Tensor, inputs: np.ndarray) -> np.ndarray:
    """Returns the mean of the layer's product per output channel, without its bias."""
    mean = tf.constant(inputs.mean(0, dtype=np.float64)[None], inputs.dtype)
    outputs = layer.apply_kernel(mean, tf.convert_to_tensor(kernel)).numpy().astype(np.float64)
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return outputs.mean(tuple(np.delete(np.arange(outputs.ndim), 1 if first else -1)))


def _scale(norm: keras.layers.BatchNormalization | None) -> np.ndarray | float:
    """Returns what a norm divides by; 1 without a norm."""
    if norm is None:
        return 1.0
    return np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)


def _shift(
    layer: keras.layers.Layer, norm: keras.layers.BatchNormalization | None
) -> np.ndarray | float:
    """Returns what is added to the product before its scale: earlier corrections count once."""
    bias = 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)
    return bias if norm is None else bias - np.asarray(norm.moving_mean, np.float64)
