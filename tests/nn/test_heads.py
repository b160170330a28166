"""Projector and predictor."""

import keras
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


@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_widths_that_cannot_be_used(widths):
    with pytest.raises(UserError, match="Widths .* of head cannot be used"):
        multi_layer_perceptron(3, widths, last_norm=False, name="head")
