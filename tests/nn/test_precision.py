"""`precision` reaches every quantized layer, whatever it stands in."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.small_digits import calibrated_network, few_digits
from tfcq.quantization.precision import Precision


class Wrapper(layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, images):
        return self.inner(images)


def in_functional(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, model(inputs))


def in_sequential(model):
    return keras.Sequential([keras.Input(model.input_shape[1:]), model])


def called_before(model):
    model(few_digits()[:1])
    return in_functional(model)


def in_a_layer(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, Wrapper(model)(inputs))


NESTINGS = {
    "one functional": [in_functional],
    "three": [in_functional, in_sequential, in_functional],
    "called before it is nested": [in_functional, called_before, in_functional],
    "a layer of the user's": [in_a_layer, in_functional],
    "a layer between models": [in_functional, in_a_layer, in_sequential, in_sequential],
}


@pytest.mark.parametrize("name", NESTINGS)
def test_a_quantized_pass_is_the_same_through_any_nesting(name):
    images = few_digits()
    outer = encoder = calibrated_network(images)
    for nest in NESTINGS[name]:
        outer = nest(outer)
    low = Precision(2, 2)
    expected = encoder(images, precision=low)
    # The first call of all, in which Keras drops what it does not know.
    np.testing.assert_array_equal(outer(images, precision=low), expected)
    assert np.any(expected != encoder(images))
    # What a call was given does not stay.
    np.testing.assert_array_equal(outer(images), encoder(images))


def test_a_saved_model_around_a_quantizable_one_hands_it_on_too(tmp_path):
    images = few_digits()
    encoder = calibrated_network(images)
    in_functional(in_functional(encoder)).save(tmp_path / "outer.keras")
    outer = keras.models.load_model(tmp_path / "outer.keras")
    low = Precision(2, 2)
    np.testing.assert_array_equal(outer(images, precision=low), encoder(images, precision=low))
