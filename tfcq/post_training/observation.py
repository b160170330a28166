"""One pass over images, from which activation ranges follow by any method."""

import functools
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.image_stream import Images, picked
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.activation_quantizer import FLOAT_PASS, ActivationQuantizer
from tfcq.nn.calibration import check_quantizable
from tfcq.post_training.histogram import Histogram
from tfcq.post_training.ranges import RANGES, Observation
from tfcq.quantization.minmax import MinMaxActivationQuantizer
from tfcq.quantization.precision import Observe, Precision, noise_seed
from tfcq.settings.bitwidths import FLOAT, BitWidth, check_bits

_FEWEST_BINS = 16


def calibration_images(images: Images, count: int, seed: int = 0) -> Images:
    """Returns images drawn without replacement, the same for the same count and seed.

    Args:
        images: array [N, height, width, channels], or a stream.
        count: how many to draw, 1 to N.
        seed: seed of the draw, not negative.

    Returns:
        Array [count, height, width, channels], or a stream, in the order of `images`.

    Raises:
        UserError: when there are fewer images, or the count is not positive.
    """
    if not 1 <= count <= len(images):
        raise UserError(
            f"{count} calibration images were asked for; allowed: 1 to {len(images)}. The nearest "
            f"is {min(max(count, 1), len(images))}."
        )
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return picked(images, np.sort(chosen))


class Observations:
    """What every activation quantizer of a model was shown; made by `observe`.

    Args:
        seen: pairs of a quantizer's layer and what it was shown.
        bits: bit-width of the passes in which it was shown.
    """

    def __init__(
        self, seen: list[tuple[ActivationQuantizer, Observation]], bits: BitWidth = FLOAT
    ) -> None:
        self.seen = seen
        self.bits = bits

    def set_ranges(self, method: str, activation_bits: int) -> None:
        """Sets the range of every activation quantizer, without another pass over images.

        Args:
            method: a name in `tfcq.post_training.ranges.RANGES`.
            activation_bits: bits that the ranges are meant for; quantizers with fixed bits get a
                range for theirs.

        Raises:
            UserError: on an unknown method, or bits outside 2 to 16.
        """
        if method not in RANGES:
            raise unknown_choice("calibration method", method, RANGES)
        check_bits(activation_bits)
        for layer, observation in self.seen:
            bits = layer.quantizer.chosen_bits(activation_bits)
            layer.set_range(*RANGES[method](observation, bits), _pair(self.bits))


def activation_quantizers(model: keras.Model) -> Iterator[ActivationQuantizer]:
    """Yields the activation quantizers of a model, those of nested models included.

    Args:
        model: a quantizable model.

    Raises:
        UserError: on a quantizer that takes no min-max range.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from activation_quantizers(layer)
        elif isinstance(layer, ActivationQuantizer):
            if not isinstance(layer.quantizer, MinMaxActivationQuantizer):
                raise UserError(
                    f"Layer {layer.name!r} is quantized by {type(layer.quantizer).__name__}, which "
                    "has no range to calibrate; allowed: 'minmax'. tfcq.requantizable(model, "
                    "'paper') makes such a model from the same weights, --policy=paper on the "
                    "command line."
                )
            yield layer


def observe(
    model: keras.Model,
    images: np.ndarray,
    batch_size: int = 256,
    bins: int = 2048,
    bits: BitWidth = FLOAT,
) -> Observations:
    """Keeps what each activation quantizer sees in one pass over images.

    A quantizer that a model calls several times sees as many batches.

    Args:
        model: a quantizable model with min-max activation quantizers.
        images: float array [count, height, width, channels], at least one image.
        batch_size: images per pass; it matters to `"moving_average"` alone.
        bins: the largest number of bins of each histogram, at least 16.
        bits: bit-width of the pass, in which each tensor is quantized over its own range.

    Raises:
        UserError: on a model that is float or has other activation quantizers, no image, an image
            with NaN or infinity, too few bins, or activations with NaN or infinity.
    """
    check_quantizable(model)
    check_images(images, batch_size)
    if bins < _FEWEST_BINS:
        raise UserError(
            f"{bins} bins cannot be used; allowed: {_FEWEST_BINS} and above. The nearest is "
            f"{_FEWEST_BINS}."
        )
    seen = {id(q): (q, Observation(Histogram(bins))) for q in activation_quantizers(model)}
    order: list[int] = []

    def shown(batch: tf.Tensor, place: tf.Tensor) -> list[tf.Tensor]:
        tensors: list[tf.Tensor] = []
        order.clear()

        def see(layer: ActivationQuantizer, tensor: tf.Tensor) -> None:
            order.append(id(layer))
            tensors.append(tensor)

        watch = Observe(see)
        precision: Precision | Observe = watch
        if not bits.is_float:
            precision = Precision(*bits.pair, "tensor", noise_seed(place), watch=watch)
        model(batch, precision=precision, training=False)
        return tensors

    signature = [
        tf.TensorSpec([None, *images.shape[1:]], model.compute_dtype),
        tf.TensorSpec((), tf.int32),
    ]
    # Behind `partial`, TensorFlow does not take the traces of several models for those of one.
    traced = tf.function(functools.partial(shown), input_signature=signature)
    for start in range(0, len(images), batch_size):
        tensors = traced(images[start : start + batch_size], start)
        for owner, tensor in zip(order, tensors, strict=True):
            layer, observation = seen[owner]
            # Half precision is observed in the dtype of the ranges.
            values = tf.cast(tensor, layer.minimum.dtype).numpy()
            if not np.all(np.isfinite(values)):
                raise UserError(
                    f"Layer {layer.name!r} was shown NaN or infinity; look for them in the weights."
                )
            observation.add(values)
    return Observations(list(seen.values()), bits)


def _pair(bits: BitWidth) -> tuple[int, int]:
    return FLOAT_PASS if bits.is_float else bits.pair


def check_images(images: np.ndarray, batch_size: int) -> None:
    """Refuses images that nothing can be learned from.

    Args:
        images: float array [count, height, width, channels].
        batch_size: images per pass.

    Raises:
        UserError: when there is none, one holds NaN or infinity, or the batch size is not positive.
    """
    if len(images) == 0:
        raise UserError("Calibration received 0 images; allowed: 1 and above, such as 1000.")
    if not np.all(np.isfinite(images)):
        raise UserError("Calibration received images with NaN or infinity; allowed: finite values.")
    if batch_size < 1:
        raise UserError(
            f"Batch size {batch_size} cannot be used; allowed: 1 and above. The nearest is 1."
        )
