"""Batch norm statistics of the quantized network, from images."""

import keras
import numpy as np

from tfcq.nn.calibration import check_quantizable
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import parts_of, run
from tfcq.post_training.observation import check_images
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth


def reestimate_batch_norm(
    model: QuantizableModel, images: np.ndarray, bits: BitWidth, batch_size: int = 256
) -> None:
    """Sets every batch norm's statistics to those of its input in a quantized or float pass.

        moving mean <- mean x        moving variance <- mean (x - mean x)^2

    over all images and positions, per channel (Sun et al. 2019, "Hybrid 8-bit Floating Point",
    Sec. 4; Finkelstein et al. 2019). Layers follow each other: each sees what the ones before it
    compute with their new statistics. The float pass uses the new statistics too.

    Args:
        model: a quantizable model with activation ranges, changed in place.
        images: float array [count, height, width, channels].
        bits: bits of the pass.
        batch_size: images per pass; the result does not depend on it.

    Raises:
        UserError: on a float model, no image, images with NaN or infinity, or a graph that cannot
            be cut into parts (`graph.parts_of`).
    """
    check_quantizable(model)
    check_images(images, batch_size)
    precision = None if bits.is_float else Precision(bits.weights, bits.activations)
    inputs = images
    for part in parts_of(model):
        for layer in part.operations:
            if isinstance(layer, keras.layers.BatchNormalization):
                values = run(part.until(layer.input), inputs, precision, batch_size)
                values = values.astype(np.float64)
                axes = tuple(np.delete(np.arange(values.ndim), layer.axis))
                layer.moving_mean.assign(values.mean(axes))
                layer.moving_variance.assign(values.var(axes))
        inputs = run(part.until(), inputs, precision, batch_size)
