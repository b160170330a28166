"""SGD with an l2 penalty against hand computation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.training.sgd import SGD


def test_three_steps_with_momentum_and_penalty():
    variable = keras.Variable([1.0, -2.0], dtype="float64")
    optimizer = SGD(0.1, momentum=0.9, l2=0.5)
    weights, momentum = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in ([0.2, 0.4], [-0.3, 0.0], [1.0, 2.0]):
        optimizer.apply_gradients([(tf.constant(gradient, tf.float64), variable)])
        momentum = 0.9 * momentum - np.float64(np.float32(0.1)) * (gradient + 0.5 * weights)
        weights = weights + momentum
        np.testing.assert_allclose(variable, weights, rtol=1e-7)
    # By hand, the first step alone: 1 - 0.1 * (0.2 + 0.5), -2 - 0.1 * (0.4 - 1).
    fresh = keras.Variable([1.0, -2.0], dtype="float64")
    SGD(0.1, l2=0.5).apply_gradients([(tf.constant([0.2, 0.4], tf.float64), fresh)])
    np.testing.assert_allclose(fresh, [0.93, -1.94], rtol=1e-7)


def test_without_penalty_it_is_keras_sgd():
    ours, theirs = (keras.Variable([1.0, -2.0]) for _ in range(2))
    pairs = [(SGD(0.1, 0.8), ours), (keras.optimizers.SGD(0.1, 0.8), theirs)]
    for optimizer, variable in pairs:
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant([0.2, -0.7]), variable)])
    np.testing.assert_array_equal(ours, theirs)


def test_excluded_variables_have_no_penalty():
    kernel, bias = keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="bias")
    zero = tf.zeros(1)
    SGD(0.5, l2=0.25, exclude=("bias",)).apply_gradients([(zero, kernel), (zero, bias)])
    np.testing.assert_array_equal(kernel, [1.75])
    np.testing.assert_array_equal(bias, [2])


def test_all_variables_have_the_penalty_by_default():
    bias = keras.Variable([2.0], name="bias")
    SGD(0.5, l2=0.25).apply_gradients([(tf.zeros(1), bias)])
    np.testing.assert_array_equal(bias, [1.75])


def test_exclusion_without_a_match_is_refused_when_built():
    with pytest.raises(UserError, match="Exclusion 'biases' .* Did you mean 'bias'"):
        SGD(0.5, l2=0.25, exclude=("biases",)).build([keras.Variable([2.0], name="bias")])


def test_configuration_comes_back():
    config = keras.optimizers.serialize(SGD(0.2, 0.7, l2=0.01, exclude=("bias", "gamma")))
    copy = keras.optimizers.deserialize(config)
    assert type(copy) is SGD
    assert (copy.l2, copy.momentum, float(copy.learning_rate)) == (0.01, 0.7, pytest.approx(0.2))
    assert tuple(copy.exclude) == ("bias", "gamma")
