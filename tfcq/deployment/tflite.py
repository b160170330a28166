"""From a quantizable model to TFLite files: float32, and integers as they were evaluated."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.forms import held_images
from tfcq.errors import UserError
from tfcq.integer.conversion import float_file
from tfcq.integer.folded import folded
from tfcq.integer.form import check_grids, deployable, is_form
from tfcq.integer.writing import check_deployed, written
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.activation_ranges import activation_layers, is_trained_quantized
from tfcq.nn.calibration import Calibrator, check_float_images, check_quantizable, float_images
from tfcq.nn.input_range import known_input_range, to_unit, with_unit_input
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.backbones import INPUT_RANGES
from tfcq.settings.bitwidths import FLOAT, parse_bit_width
from tfcq.settings.evaluation_groups import DEPLOYED_BITS


def float_tflite(model: keras.Model) -> bytes:
    """Returns a float32 TFLite model, for single images float32 [1, height, width, channels].

    Args:
        model: a functional model with one input, quantizable or not.

    Raises:
        UserError: on a model that cannot be folded or has no fixed image size.
    """
    plain = folded(model).model
    check_deployed(plain)
    return float_file(
        lambda images: plain(images, training=False),
        [((1, *plain.input_shape[1:]), "float32")],
        plain.variables,
        f"Model {model.name!r}",
    )


def int8_tflite(
    model: keras.Model,
    images: np.ndarray | tf.Tensor | Sequence | tf.data.Dataset,
    input_range: str | None = None,
    bits: str = DEPLOYED_BITS,
    batch: int = 1,
) -> bytes:
    """Returns an int8 TFLite model whose integers are those of the network's integer form.

    Its input is uint8 [batch, height, width, channels], the pixels as cameras and image files hold
    them, whatever pixels the float model takes: as [0, 1] at the scale 1/255 they pass without any
    loss, and a device needs no float arithmetic for them. Its output is float32, dequantized in
    the last operation, so that whatever reads features needs to know no scale.

    Args:
        model: a calibrated quantizable model of images, with one output or several; one that
            `tfcq.deployable` did not make is brought to its integer form, and keeps its ranges.
        images: calibration images in the pixels that the model takes, in any form that
            `tfcq.calibrate` takes; they set the ranges of the tensors behind which the model has no
            activation quantizer.
        input_range: as for `tfcq.calibrate`.
        bits: bit-width of the weights beside 8 of the activations, such as `"4w8a"`; weights of
            fewer bits than 8 are stored in 8.
        batch: images that the file takes at once.

    Raises:
        UserError: on no image, images outside those pixels or of another shape, or a model that is
            not quantizable, cannot be folded, was not calibrated, has no fixed image size or holds
            a layer that int8 runtimes do not have.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), "int8")
        >>> images = np.linspace(0, 1, 4 * 64, dtype="float32").reshape(4, 8, 8, 1)
        >>> tfcq.calibrate(encoder, images)
        >>> tfcq.int8_tflite(encoder, images)[4:8]
        b'TFL3'
    """
    check_quantizable(model)
    name = known_input_range(model, input_range)
    images = np.asarray(float_images(held_images(images, "int8_tflite()"), model, name))
    check_float_images(images, model.input_shape)
    _check_some(images)
    least, greatest = float(np.min(images)), float(np.max(images))
    low, high = INPUT_RANGES[name]
    if not low <= least <= greatest <= high:
        raise UserError(
            f"Images from {least:g} to {greatest:g} were received; allowed: the pixels that model "
            f"{model.name!r} takes, from {low:g} to {high:g}, or others with input_range: "
            f"{', '.join(repr(other) for other in INPUT_RANGES)}."
        )
    form = calibrated_form(with_unit_input(model, name), to_unit(images, name))
    return written(form, parse_bit_width(bits), batch).file.to_bytes()


def _check_some(images: np.ndarray) -> None:
    """Refuses no image.

    Raises:
        UserError: when there is none.
    """
    if not len(images):
        raise UserError("No image was received; allowed: 1 and above.")


def check_classified(model: keras.Model, images: np.ndarray) -> None:
    """Refuses what other libraries would take for something else, or end the process at.

    Args:
        model: a model of images in [0, 1] with one output.
        images: the images.

    Raises:
        UserError: on several outputs, no image, or images of another type, shape or range.
    """
    if len(model.outputs) != 1:
        raise UserError(f"Model {model.name!r} has {len(model.outputs)} outputs; allowed: one.")
    check_float_images(images, model.input_shape)
    _check_some(images)
    least, greatest = float(np.min(images)), float(np.max(images))
    if not 0 <= least <= greatest <= 1:
        raise UserError(
            f"Images from {least:g} to {greatest:g} were received; allowed: from 0 to 1."
        )


def calibrated_form(model: QuantizableModel, images: np.ndarray) -> QuantizableModel:
    """Returns the integer form of a calibrated model, with the ranges that it has.

    Args:
        model: a calibrated quantizable model of images in [0, 1].
        images: float32 [count, height, width, channels], which set the ranges of other tensors: in
            quantized passes where the model was trained in such, else in float ones.

    Raises:
        UserError: as `tfcq.deployable` does, or on a model that was not calibrated.
    """
    check_grids(model)
    for name, layer in activation_layers(model):
        if layer.quantizer.takes_range and not _is_known(layer):
            raise UserError(
                f"Activation quantizer {name!r} has no recorded range; call "
                "tfcq.calibrate(model, images) before deployment."
            )
    if is_form(model):
        return model
    form = deployable(model)
    held = [
        (layer, layer.get_weights()) for _, layer in activation_layers(form) if _is_known(layer)
    ]
    passes = parse_bit_width(DEPLOYED_BITS) if is_trained_quantized(model) else FLOAT
    Calibrator(form)(images, passes)
    for layer, ranges in held:
        layer.set_weights(ranges)
    return form


def _is_known(layer: ActivationQuantizer) -> bool:
    return bool(np.isfinite(layer.minimum.numpy()))
