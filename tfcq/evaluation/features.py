"""Features of a quantizable model at any bit-width, from one traced function."""

import functools
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
from tfcq.nn.layer_bits import leaves_of
from tfcq.nn.layers import QuantizedKernel
from tfcq.post_training.plan import Quantized
from tfcq.quantization.precision import Precision, noise_seed
from tfcq.settings.bitwidths import FLOAT, BitWidth


class FeatureExtractor:
    """Computes features of images at a bit-width; all that are quantized share one trace.

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
        self._layers = [one for one in leaves_of(model) if isinstance(one, QuantizedKernel)]
        self._bits = tf.Variable([0, 0], dtype=tf.int32, trainable=False)
        batch = [
            tf.TensorSpec([None, *model.input_shape[1:]], model.compute_dtype),
            tf.TensorSpec((), tf.int32),
        ]
        kernels = [tf.TensorSpec(one.kernel.shape, one.compute_dtype) for one in self._layers]
        self._float = tf.function(self._float_pass, input_signature=batch)
        self._quantized = tf.function(self._quantized_pass, input_signature=[*batch, kernels])
        self._kernels = tf.function(self._quantized_kernels)

    def _float_pass(self, images: tf.Tensor, place: tf.Tensor) -> Any:
        self.traces += 1
        return self.model(images, training=False)

    def _quantized_pass(self, images: tf.Tensor, place: tf.Tensor, kernels: list) -> Any:
        self.traces += 1
        precision = self._precision(place)
        for layer, kernel in zip(self._layers, kernels, strict=True):
            precision.provide(layer, kernel)
        return self.model(images, precision=precision, training=False)

    def _quantized_kernels(self) -> list[tf.Tensor]:
        precision = self._precision(0)
        return [layer.quantized_kernel(precision) for layer in self._layers]

    def _precision(self, place: Any) -> Precision:
        weights, activations = tf.unstack(self._bits)
        return Precision(weights, activations, seed=noise_seed(place), shared={})

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
        if bits.is_float:
            compute = self._float
        else:
            self._bits.assign((bits.weights, bits.activations))
            # Once for all batches.
            compute = functools.partial(self._quantized, kernels=self._kernels())
        batches = []
        for place, batch in enumerate(image_batches(images, self.batch_size)):
            if not np.all(np.isfinite(batch)):
                raise UserError("Images hold NaN or infinity; allowed: finite values.")
            batches.append(keras.tree.map_structure(np.asarray, compute(batch, place)))
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
