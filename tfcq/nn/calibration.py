"""Records the activation ranges of a quantizable model on images."""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.forms import held_images
from tfcq.errors import UserError
from tfcq.nn.activation_ranges import is_trained_quantized
from tfcq.nn.input_range import check_pixels, known_input_range
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision, RecordRanges, noise_seed
from tfcq.settings.bitwidths import FLOAT, BitWidth, parse_bit_width


class Calibrator:
    """Sets a model's activation ranges, as often as needed from one traced function.

    Args:
        model: a quantizable model.
        batch_size: images per pass.

    Raises:
        UserError: when the model is a float one.
    """

    def __init__(self, model: keras.Model, batch_size: int = 256) -> None:
        check_quantizable(model)
        self.batch_size = batch_size
        self._record = _recorder(model)
        self._shape = model.input_shape

    def __call__(self, images: np.ndarray | tf.Tensor, bits: BitWidth = FLOAT) -> None:
        """Sets every range to the minimum and maximum seen in passes over images.

        Args:
            images: float array [count, height, width, channels], at least one image.
            bits: bit-width of the passes, in which each tensor is quantized over its own range.

        Raises:
            UserError: when there is no image, images are integers or of another shape than the
                model takes, or an image holds NaN or infinity.
        """
        if len(images) == 0:
            raise UserError("Calibration received 0 images; allowed: 1 and above, such as 1000.")
        check_float_images(images, self._shape)
        if not np.all(np.isfinite(images)):
            raise UserError(
                "Calibration received images with NaN or infinity; allowed: finite values."
            )
        pair = None if bits.is_float else tf.constant((bits.weights, bits.activations))
        for start in range(0, len(images), self.batch_size):
            batch = tf.convert_to_tensor(images[start : start + self.batch_size])
            self._record(batch, tf.constant(start), pair)


def calibrate(
    model: keras.Model,
    images: np.ndarray | tf.Tensor | Sequence | tf.data.Dataset,
    batch_size: int = 256,
    bits: str | None = None,
    input_range: str | None = None,
) -> None:
    """Sets every activation range to the minimum and maximum seen in passes over images.

    `tfcq.calibrate(model, images)` records float passes (SSQL). A network that was trained with
    each tensor quantized over its own range, as by Contrastive Quant's recipes, never saw those:
    `tfcq.calibrate(model, images, bits="4w8a")` records passes quantized as it was trained.

    Args:
        model: a quantizable model.
        images: float array [count, height, width, channels], at least one image, a list of such
            images, or a finite `tf.data` set of them, batched or not, perhaps with labels; of a
            model that takes pixels from 0 to 255, uint8 ones too.
        batch_size: images per pass.
        bits: bit-width of the passes, such as `"4w8a"`, or `"fp"`; None for float, which a network
            trained in quantized passes alone refuses.
        input_range: the pixels that the model takes, `"0-1"`, `"0-255"` or `"-1-1"`; None for what
            its first layers tell, else `"0-1"`.

    Raises:
        UserError: when the model is a float one, or was trained in quantized passes and no bits
            are given, there is no image, images are integers, of another shape than the model
            takes or miss its pixels by an order of magnitude, or an image holds NaN or infinity.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> images = np.linspace(0, 1, 4 * 64, dtype="float32").reshape(4, 8, 8, 1)
        >>> tfcq.calibrate(encoder, images)
        >>> bool(np.isfinite(encoder.get_layer("stem_relu_quantizer").maximum))
        True
    """
    calibrator = Calibrator(model, batch_size)
    if bits is None and is_trained_quantized(model):
        raise UserError(
            f"Model {model.name!r} was trained in quantized passes, and float ranges do not fit "
            "it; pass the bit-width that it is to run at, such as bits='4w8a' (or bits='fp')."
        )
    name = known_input_range(model, input_range)
    images = float_images(held_images(images, "calibrate()"), model, name)
    if len(images) and tf.as_dtype(images.dtype).is_floating and np.all(np.isfinite(images)):
        check_pixels(images, name, model)
    calibrator(images, FLOAT if bits is None else parse_bit_width(bits))


def float_images(
    images: np.ndarray | tf.Tensor, model: keras.Model, name: str | None = None
) -> np.ndarray | tf.Tensor:
    """Returns images with uint8 pixels as floats, where a model takes those from 0 to 255.

    Args:
        images: the images.
        model: the model.
        name: the pixels that it takes, a name in `INPUT_RANGES`; None for what it tells.
    """
    if images.dtype not in (np.uint8, tf.uint8) or known_input_range(model, name) != "0-255":
        return images
    return np.asarray(images, model.compute_dtype)


def check_float_images(images: np.ndarray | tf.Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuses images that a model would take for something else.

    Args:
        images: the images.
        shape: shape of the model's inputs, with None where any size is taken.

    Raises:
        UserError: when they are integers, or of another shape.
    """
    if not tf.as_dtype(images.dtype).is_floating:
        raise UserError(
            f"Images of type {tf.as_dtype(images.dtype).name} were received; allowed: float32 as "
            "the model was trained on, such as pixels / 255."
        )
    fits = len(images.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(images.shape, shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"Images of shape {tuple(images.shape)} were received; allowed for this model: "
            f"{tuple('any' if size is None else size for size in shape)}."
        )


def check_quantizable(model: keras.Model) -> None:
    """Refuses a model that would ignore a precision, or takes more than images.

    Args:
        model: the model.

    Raises:
        UserError: when `tfcq.quantizable` did not make it, or it has several inputs.
    """
    if not isinstance(model, QuantizableModel):
        raise UserError(
            f"Model {model.name!r} is a float model; allowed: tfcq.quantizable({model.name})."
        )
    if len(model.inputs) != 1:
        raise UserError(
            f"Model {model.name!r} has {len(model.inputs)} inputs; allowed: one, of images."
        )


def _recorder(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None], None]:
    def record(images: tf.Tensor, start: tf.Tensor, bits: tf.Tensor | None) -> None:
        for reset in (True, False):
            if (start == 0) == reset:
                record_ranges = RecordRanges(reset)
                precision: Precision | RecordRanges = record_ranges
                if bits is not None:
                    seed = noise_seed(start)
                    precision = Precision(bits[0], bits[1], "tensor", seed, watch=record_ranges)
                model(images, precision=precision, training=False)

    # Behind `partial`, TensorFlow does not take the traces of several models for those of one.
    return tf.function(functools.partial(record), reduce_retracing=True)
