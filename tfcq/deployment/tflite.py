"""From a quantizable model to TFLite files: float32, and int8 on the grids that were evaluated."""

import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfcq import native_messages
from tfcq.deployment.fold import fold
from tfcq.deployment.int8_graph import int8_graph
from tfcq.deployment.runtime import LiteModel
from tfcq.errors import UserError
from tfcq.nn.calibration import check_float_images, check_quantizable
from tfcq.nn.input_range import known_input_range, to_unit, with_unit_input
from tfcq.nn.integer_layers import in_float
from tfcq.settings.backbones import INPUT_RANGES


def float_tflite(model: keras.Model) -> bytes:
    """Returns a float32 TFLite model, for single images float32 [1, height, width, channels].

    Args:
        model: a functional model with one input, quantizable or not.

    Raises:
        UserError: on a model that cannot be folded or has no fixed image size.
    """
    return _convert(fold(model), integer=False)


def int8_tflite(model: keras.Model, images: np.ndarray, input_range: str | None = None) -> bytes:
    """Returns an int8 TFLite model for single images, on the grids described in `int8_graph`.

    Its input is uint8 [1, height, width, channels], the pixels as cameras and image files hold
    them, whatever pixels the float model takes: as [0, 1] at the scale 1/255 they pass without any
    loss, and a device needs no float arithmetic for them. Its output is float32, dequantized in
    the last operation, so that whatever reads features needs to know no scale.

    Args:
        model: a calibrated quantizable model of images, with one output or several.
        images: float32 [count, height, width, channels], calibration images in the pixels that the
            model takes; they set the ranges of the tensors behind which the model has no activation
            quantizer.
        input_range: as for `tfcq.calibrate`.

    Raises:
        UserError: on images outside those pixels or of another shape, or a model that is not
            quantizable, cannot be folded, was not calibrated, has no fixed image size or holds an
            operation that would stay in float.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), "int8")
        >>> images = np.linspace(0, 1, 4 * 64, dtype="float32").reshape(4, 8, 8, 1)
        >>> tfcq.calibrate(encoder, images)
        >>> tfcq.int8_tflite(encoder, images)[4:8]
        b'TFL3'
    """
    check_quantizable(model)
    name = known_input_range(model, input_range)
    if name == "0-255" and images.dtype == np.uint8:
        images = images.astype(np.float32)
    check_float_images(images, model.input_shape)
    least, greatest = float(np.min(images)), float(np.max(images))
    low, high = INPUT_RANGES[name]
    if not low <= least <= greatest <= high:
        raise UserError(
            f"Images from {least:g} to {greatest:g} were received; allowed: the pixels that model "
            f"{model.name!r} takes, from {low:g} to {high:g}, or others with input_range: "
            f"{', '.join(repr(other) for other in INPUT_RANGES)}."
        )
    model, images = with_unit_input(model, name), to_unit(images, name)
    if named := in_float(model):
        raise _stays_in_float(model, named)
    content = _convert(int8_graph(model, images), integer=True)
    lite = LiteModel(content)
    inner = [tensor for tensor in lite.tensors if not tensor.is_output]
    left = [tensor.name for tensor in inner if np.issubdtype(tensor.dtype, np.floating)]
    if left:
        # Names of the graph that was converted: those of the layers, some numbered.
        parts = {part for name in left for part in re.split("[/;]", name)}
        stems = parts | {re.sub(r"_\d+$", "", part) for part in parts}
        named = [repr(layer.name) for layer in model.operations if layer.name in stems]
        raise _stays_in_float(model, named or [repr(left[0])])
    return content


def _stays_in_float(model: keras.Model, named: list[str]) -> UserError:
    others = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return UserError(
        f"Model {model.name!r} would stay in float at {', '.join(named[:3])}{others}; allowed: "
        "Conv2D, DepthwiseConv2D and Dense (ReLU behind them or fused), sums, pooling, padding, "
        "reshaping."
    )


def _convert(model: keras.Model, integer: bool) -> bytes:
    if None in model.input_shape[1:]:
        raise UserError(
            f"Model {model.name!r} takes images of shape {model.input_shape[1:]}; allowed for "
            "deployment: a fixed shape."
        )
    # The converter freezes only variables that the module it is given holds itself.
    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    signature = [tf.TensorSpec([1, *model.input_shape[1:]], tf.float32)]
    module.compute = tf.function(
        lambda images: model(images, training=False), input_signature=signature
    )
    with warnings.catch_warnings(), native_messages.hidden():
        warnings.simplefilter("ignore")
        function = module.compute.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        if integer:
            # The grids in the graph are all it needs: no representative data set.
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.float32
        return converter.convert()
