"""Features of a quantizable model at any bit-width, from one traced function."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.forms import held_images
from tfcq.data.image_stream import Images, ImageStream, image_batches
from tfcq.errors import UserError
from tfcq.nn.calibration import check_float_images, check_quantizable, float_images
from tfcq.nn.input_range import check_pixels, known_input_range
from tfcq.post_training.plan import Quantized
from tfcq.quantization.precision import Precision, noise_seed
from tfcq.settings.bitwidths import FLOAT, BitWidth

_FLOAT_BITS = 0


class FeatureExtractor:
    """Computes features of images at a bit-width; every bit-width shares one trace.

    Args:
        model: a quantizable model with recorded ranges.
        batch_size: images per pass.
        input_range: the pixels that the model takes, `"0-1"`, `"0-255"` or `"-1-1"`; None for what
            its first layers tell, else `"0-1"`.

    Raises:
        UserError: when the model is a float one, or there is no such range.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> images = np.linspace(0, 1, 5 * 64, dtype="float32").reshape(5, 8, 8, 1)
        >>> tfcq.calibrate(encoder, images)
        >>> tfcq.FeatureExtractor(encoder)(images, tfcq.BitWidth(4, 8)).shape
        (5, 8)
    """

    def __init__(
        self, model: keras.Model, batch_size: int = 256, input_range: str | None = None
    ) -> None:
        check_quantizable(model)
        self.model = model
        self.batch_size = batch_size
        self.input_range = known_input_range(model, input_range)
        self.traces = 0
        self._bits = tf.Variable([_FLOAT_BITS, _FLOAT_BITS], dtype=tf.int32, trainable=False)
        shape = [None, *model.input_shape[1:]]
        self._compute = tf.function(
            self._pass,
            input_signature=[
                tf.TensorSpec(shape, model.compute_dtype),
                tf.TensorSpec((), tf.int32),
            ],
        )

    def _pass(self, images: tf.Tensor, batch: tf.Tensor) -> Any:
        self.traces += 1
        weight_bits, activation_bits = tf.unstack(self._bits.read_value())
        return tf.cond(
            weight_bits == _FLOAT_BITS,
            lambda: self.model(images, training=False),
            lambda: self.model(
                images,
                precision=Precision(weight_bits, activation_bits, seed=noise_seed(batch)),
                training=False,
            ),
        )

    def __call__(self, images: Images, bits: BitWidth = FLOAT) -> Any:
        """Returns features, float [count, width].

        Args:
            images: float array [count, height, width, channels], or in any other form that
                `tfcq.calibrate` takes; or a stream.
            bits: bit-width of the pass.

        Returns:
            The array; of a model with several outputs, arrays in the structure that it returns.

        Raises:
            UserError: when there is no image, images are integers, of another shape than the
                model takes or miss its pixels by an order of magnitude, or features come out as
                NaN or infinity.
        """
        streamed = isinstance(images, ImageStream)
        if not streamed:
            held = held_images(images, "FeatureExtractor")
            images = float_images(held, self.model, self.input_range)
        if len(images) == 0:
            raise UserError("Features were asked for 0 images; allowed: 1 and above.")
        check_float_images(images, self.model.input_shape)
        # A head behind a backbone takes features, which may be of any size.
        if not streamed and len(images.shape) == 4:
            check_pixels(images, self.input_range, self.model)
        floats = (_FLOAT_BITS, _FLOAT_BITS)
        self._bits.assign(floats if bits.is_float else (bits.weights, bits.activations))
        batches = []
        for place, batch in enumerate(image_batches(images, self.batch_size)):
            if not np.all(np.isfinite(batch)):
                raise UserError("Images hold NaN or infinity; allowed: finite values.")
            batches.append(keras.tree.map_structure(np.asarray, self._compute(batch, place)))
        features = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
        if not all(np.all(np.isfinite(one)) for one in keras.tree.flatten(features)):
            raise UserError(
                f"Features at {bits} hold NaN or infinity; look for them in the images and weights."
            )
        return features


class QuantizedFeatures:
    """Computes features of a model that is quantized after training, at any bit-width.

    Bit-widths that run the same model share its trace.

    Args:
        quantized: gives what is run at a bit-width, such as `PostTraining.at`; called once as long
            as the bit-width stays.

    Attributes:
        run: what the last call ran; absent before the first.
    """

    def __init__(self, quantized: Callable[[BitWidth], Quantized]) -> None:
        self._quantized = quantized
        self._bits: BitWidth | None = None
        self._extractor: FeatureExtractor
        self.run: Quantized

    def __call__(self, images: Images, bits: BitWidth) -> np.ndarray:
        """Returns features, float [count, width].

        Args:
            images: float array [count, height, width, channels], or a stream.
            bits: the bit-width.

        Raises:
            UserError: as `FeatureExtractor` does.
        """
        if bits != self._bits:
            self.run = self._quantized(bits)
            if self._bits is None or self._extractor.model is not self.run.model:
                self._extractor = FeatureExtractor(self.run.model)
            self._bits = bits
        return self._extractor(images, bits)
