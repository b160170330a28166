"""A quantizable model as a plain Keras model that computes on the grids of an int8 runtime.

How these grids differ from the 8w8a simulation, because the runtime forces it:

- Weights: the simulation's full range has levels -128..127 at scale max|w| / 127.5; the runtime
  allows -127..127. The scale is kept and level -128 becomes -127, which concerns one weight, the
  largest, of the channels where that one is negative.
- Activations: zero must be representable, so a range that excludes it is widened to it.
- Every stored tensor is quantized, also those that a policy leaves in float: images, normalized
  images, operands of residual sums, pooled features. Sums round once more when they rescale their
  operands.
- Rounding is to the nearest, whatever the activation quantizer says, and 8 bits are used where a
  layer is fixed at other bits; weights of fewer bits land within half an int8 step of their grid.
- Biases are int32 at the product of the scales of input and weights.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.deployment.fold import float_kernel, fold
from tfcq.deployment.ranges import Range, activation_ranges
from tfcq.errors import UserError
from tfcq.nn.cloning import cloned, free_name
from tfcq.nn.copied_weights import give_weights
from tfcq.nn.quantizable import quantizers_of
from tfcq.quantization import ops
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer
from tfcq.quantization.stored_scale import StoredScaleWeightQuantizer, stored_scale

_BITS = 8
_DEPLOYED = (MinMaxWeightQuantizer, StoredScaleWeightQuantizer, MinMaxActivationQuantizer)


def int8_graph(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Returns the folded model with int8 weights and activations, simulated in float32.

    Args:
        model: a calibrated quantizable model, images in [0, 1] to features.
        images: float32 [count, height, width, channels], calibration images; they set the ranges
            of the tensors behind which the model has no activation quantizer.

    Raises:
        UserError: on a model that cannot be folded, was not calibrated or has quantizers other
            than `minmax`, or without images.
    """
    _check_quantizers(model)
    plain = fold(model, int8_kernel)
    return _with_ranges(plain, activation_ranges(model, plain, images))


def _check_quantizers(model: keras.Model) -> None:
    """Refuses quantizers whose grids are not those that an int8 runtime computes on."""
    found = quantizers_of(model, "weight_quantizer") | quantizers_of(model, "quantizer")
    for name, quantizer in found.items():
        if not isinstance(quantizer, _DEPLOYED):
            raise UserError(
                f"Layer {name!r} is quantized by {type(quantizer).__name__}, which int8 "
                "cannot reproduce; allowed: 'minmax'. tfcq.requantizable(model, 'int8') makes such "
                "a model from the same weights (tfcq.export: --policy=int8)."
            )
        if isinstance(quantizer, StoredScaleWeightQuantizer) and (quantizer.bits or 0) > _BITS:
            raise UserError(
                f"Layer {name!r} keeps a scale for {quantizer.bits} bits; allowed in int8: "
                f"at most {_BITS}."
            )


def int8_kernel(layer: keras.layers.Layer) -> np.ndarray:
    """Returns a kernel on the simulation's 8-bit grid without its most negative level.

    The largest magnitude of a channel is then 127 steps, from which a converter finds the scale.
    Where fewer bits or a stored scale leave it smaller, weights land within half a step of the
    converter's.

    Args:
        layer: a convolution or dense layer, quantized or plain.
    """
    quantizer = getattr(layer, "weight_quantizer", None)
    if quantizer is None:
        return float_kernel(layer)
    kernel = tf.convert_to_tensor(layer.kernel)
    bits = min(quantizer.bits or _BITS, _BITS)
    if isinstance(quantizer, StoredScaleWeightQuantizer):
        rounding, scale = "nearest", tf.convert_to_tensor(stored_scale(layer))
    else:
        axes = layer.kernel_axes if quantizer.per_channel else None
        rounding = quantizer.rounding
        scale = ops.symmetric_scale(kernel, bits, axes, quantizer.narrow_range)
    lowest, highest = ops.symmetric_levels(bits, True, scale.dtype)
    zero_point = tf.zeros((), scale.dtype)
    return ops.fake_quantize(kernel, scale, zero_point, lowest, highest, rounding).numpy()


def with_zero(ends: Range) -> Range:
    """Returns the range widened to hold zero and more than one value.

    Args:
        ends: lowest and highest value.
    """
    lowest, highest = min(ends[0], 0.0), max(ends[1], 0.0)
    return (lowest, highest) if highest > lowest else (0.0, 1.0)


class _Grid(keras.layers.Layer):
    """Rounds its input to 256 levels of a fixed range, in an operation that converters know."""

    def __init__(self, ends: Range, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ends = with_zero(ends)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the nearest levels."""
        lowest, highest = self.ends
        return tf.quantization.fake_quant_with_min_max_args(inputs, lowest, highest, _BITS)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Returns shape and dtype; Keras would try a sparse tensor where a product could be one."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def _with_ranges(plain: keras.Model, ranges: dict[str, Range]) -> keras.Model:
    names = {operation.name for operation in plain.operations}

    def grid(name: str) -> _Grid:
        # A name of its own, whatever layers the model has.
        return _Grid(ranges[name], name=free_name(f"{name}_grid", names), dtype="float32")

    def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        return grid(layer.name)(outputs) if layer.name in ranges else outputs

    body = cloned(plain, call_layer=call_layer)
    give_weights(body, plain.get_weights())
    source = plain.layers[0]
    images = keras.Input(batch_shape=plain.inputs[0].shape, dtype="float32", name=source.name)
    return keras.Model(images, body(grid(source.name)(images)), name=plain.name)
