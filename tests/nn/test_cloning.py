"""Copies of layers and models, whatever their classes say of their configuration."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.nn.cloning import copy_of, free_name
from tfcq.nn.quantizable import quantizable


def squared(x):
    return x * x


class Scale(layers.Layer):
    """Neither `get_config` nor `**kwargs`: Keras cannot rebuild it, nor keep its name."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), name="factor")

    def call(self, x):
        return x * self.factor + self.start


class Small(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.01, dtype)


MIDDLES = {
    "function": lambda: layers.Dense(3, activation=squared),
    "lambda": lambda: layers.Dense(3, activation=lambda x: x + 1),
    "no get_config": lambda: Scale(0.5),
    "initializer": lambda: layers.Dense(3, kernel_initializer=Small()),
    "LoRA": lambda: layers.Dense(3, lora_rank=1),
    "sequential": lambda: keras.Sequential([layers.Dense(3), Scale(2.0)]),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_a_copy_computes_the_same_and_keeps_names(name):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(MIDDLES[name]()(inputs)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    x = np.random.default_rng(1).random((5, 4), np.float32)
    copies = [copy_of(model), quantizable(model), copy_of(quantizable(model))]
    for copy in copies:
        np.testing.assert_array_equal(copy(x), model(x))
        names, held = ({layer.name for layer in m.layers[1:]} for m in (model, copy))
        assert names <= held


def test_a_model_that_was_compiled_with_a_loss_of_the_users_is_copied():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", loss=lambda y, z: keras.ops.mean(z))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(copy_of(quantizable(model))(x), model(x))


def test_a_free_name_is_the_one_wanted_or_numbered():
    assert free_name("a", {"b"}) == "a"
    assert free_name("a", {"a", "a_1"}) == "a_2"
