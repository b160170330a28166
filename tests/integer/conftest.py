"""A small calibrated network and its images, made once."""

import keras
import numpy as np
import pytest

from tfcq.backbones.resnet import resnet
from tfcq.integer.form import deployable
from tfcq.integer.runtime import every_tensor
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth


def randomize_norms(model: keras.Model, seed: int = 0) -> None:
    """Gives every batch norm statistics of its own, with negative factors among them."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            (count,) = layer.moving_mean.shape
            sign = rng.choice([-1.0, 1.0], count)
            ranges = {"gamma": sign * rng.uniform(0.5, 1.5, count)}
            ranges["beta"] = rng.normal(0, 0.3, count)
            ranges["moving_mean"] = rng.normal(0, 0.3, count)
            ranges["moving_variance"] = rng.uniform(0.5, 2, count)
            for name, value in ranges.items():
                getattr(layer, name).assign(value)


@pytest.fixture(scope="session")
def images():
    """Images of whole pixel values, float32 [64, 8, 8, 1] in [0, 1]."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (64, 8, 8, 1)) / 255).astype(np.float32)


@pytest.fixture(scope="session")
def network(images):
    """A calibrated ResNet of four stages with policy `paper`."""
    keras.utils.set_random_seed(0)
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1, 1, 1, 1))
    randomize_norms(model)
    model = quantizable(model, "paper")
    calibrate(model, images)
    return model


def share_of_equal_steps(model: keras.Model, images: np.ndarray, kernels: str = "xnnpack") -> float:
    """Returns in what share of its outputs a model's integer form equals its file in LiteRT."""
    form = deployable(model)
    calibrate(form, images)
    file = written(form, BitWidth(8, 8))
    values = every_tensor(file, np.round(images * 255).astype(np.uint8), kernels)
    outputs = keras.tree.flatten(form(images, precision=Precision(8, 8)))
    shares = []
    for index, expected in zip(file.outputs, outputs, strict=True):
        (last,) = [one for one in file.operations if one.outputs == [index]]
        scale = file.tensors[last.inputs[0]].scale
        shares.append(np.mean(np.abs(values[index] - np.asarray(expected)) < scale / 2))
    return float(min(shares))
