"""Which layers an int8 runtime computes in float, told before anything is trained."""

import keras
import pytest
from keras import layers

import tfcq
from tfcq.nn.integer_layers import tell_in_float


def network(activation):
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Conv2D(2, 3, activation=activation, name="wide")(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(outputs))


@pytest.mark.parametrize("policy", ["int8", "paper"])
def test_only_where_the_policy_is_that_of_an_int8_runtime(policy, capsys):
    model = network("elu")
    tell_in_float(model, policy)
    told = capsys.readouterr().out
    assert ("'wide' (Conv2D with activation 'elu'" in told) == (policy == "int8")
    tell_in_float(tfcq.quantizable(network("relu"), policy), policy)
    assert capsys.readouterr().out == ""
