"""A few of the digits, and a small network whose ranges were recorded on them."""

import keras
import numpy as np
from sklearn.datasets import load_digits

from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import QuantizableModel, quantizable


def few_digits() -> np.ndarray:
    """Returns float images [60, 8, 8, 1] in [0, 1]."""
    return (load_digits().images[:60, ..., None] / 16).astype(np.float32)


def calibrated_network(images: np.ndarray) -> QuantizableModel:
    """Returns a network of two convolutions, the same at every call, calibrated on images."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = quantizable(network, "uniform")
    calibrate(model, images)
    return model
