"""The feature pyramid, level by level."""

import keras
import numpy as np
import pytest

from tests.detection.small_mask_rcnn import backbone
from tfcq.detection.parts import any_size, stage_outputs
from tfcq.detection.pyramid import LEVEL_STRIDES, feature_pyramid


def normed(x, layer):
    gamma, beta, mean, variance = (weight.numpy() for weight in layer.weights)
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


def convolved(x, kernel):
    """Returns the sum over the kernel's places of a map that is 0 beyond its border."""
    side, (_, height, width, _) = kernel.shape[0] // 2, x.shape
    padded = np.pad(x, [(0, 0), (side, side), (side, side), (0, 0)])
    return sum(
        padded[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(len(kernel))
        for column in range(len(kernel))
    )


@pytest.fixture(scope="module")
def computed():
    network = any_size(backbone())
    stages = stage_outputs(network)
    levels = feature_pyramid(stages, 5)
    model = keras.Model(network.inputs, [*(stages[n] for n in range(1, 5)), *levels])
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith("pyramid") and layer.name.endswith("norm"):
            layer.set_weights([rng.uniform(0.5, 1.5, 5) for _ in range(4)])
    images = rng.uniform(size=(2, 64, 96, 1)).astype("float32")
    return model, [np.asarray(one) for one in model(images)]


def test_levels_are_sums_of_their_stage_and_of_what_is_above(computed):
    model, outputs = computed
    above = 0
    for level in (5, 4, 3, 2):
        kernel, norm = (
            [model.get_layer(f"pyramid{level}{of}{what}") for of in ("_lateral", "")]
            for what in ("", "_norm")
        )
        lateral = normed(convolved(outputs[level - 2], kernel[0].kernel.numpy()), norm[0])
        above = lateral + np.repeat(np.repeat(above, 2, 1), 2, 2) if level < 5 else lateral
        expected = normed(convolved(above, kernel[1].kernel.numpy()), norm[1])
        np.testing.assert_allclose(outputs[level + 2], expected, rtol=1e-4, atol=1e-4)


def test_level_6_is_every_second_cell_of_level_5_and_strides_are_as_told(computed):
    *_, fifth, sixth = computed[1]
    np.testing.assert_array_equal(sixth, fifth[:, ::2, ::2])
    shapes = [one.shape[1:3] for one in computed[1][4:]]
    assert shapes == [(-(-64 // s), -(-96 // s)) for s in LEVEL_STRIDES]
