"""Projector and predictor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.heads import multi_layer_perceptron


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def test_projector_ends_in_a_batch_norm_without_scale_and_offset():
    model = multi_layer_perceptron(3, (4, 5), last_norm=True, name="projector")
    assert kinds(model) == ["Dense", "BatchNormalization", "ReLU", "Dense", "BatchNormalization"]
    last = model.layers[-1]
    assert (last.scale, last.center) == (False, False)
    assert [layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [
        False,
        False,
    ]
    assert model(tf.ones([2, 3])).shape == (2, 5)


def test_predictor_ends_in_a_dense_layer_with_bias():
    model = multi_layer_perceptron(3, (4, 5), last_norm=False, name="predictor")
    assert kinds(model) == ["Dense", "BatchNormalization", "ReLU", "Dense"]
    assert [layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [
        False,
        True,
    ]


def test_heads_start_and_normalize_as_the_published_recipes_do():
    keras.utils.set_random_seed(0)
    model = multi_layer_perceptron(64, (300, 20), last_norm=True, name="projector")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            # PyTorch's start, for which the rates were tuned: uniform in +-1 / sqrt(inputs).
            bound = layer.kernel.shape[0] ** -0.5
            kernel = np.abs(layer.kernel) / bound
            assert 0.98 < kernel.max() <= 1 and 0.48 < kernel.mean() < 0.52
        elif isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_widths_that_cannot_be_used(widths):
    with pytest.raises(UserError, match="Widths .* of head cannot be used"):
        multi_layer_perceptron(3, widths, last_norm=False, name="head")
