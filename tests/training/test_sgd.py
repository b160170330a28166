"""SGD with an l2 penalty, and learning rates, against hand computation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.training.optimizers import SGD, learning_rate_schedule


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


def test_configuration_comes_back():
    config = keras.optimizers.serialize(SGD(0.2, 0.7, l2=0.01))
    copy = keras.optimizers.deserialize(config)
    assert type(copy) is SGD
    assert (copy.l2, copy.momentum, float(copy.learning_rate)) == (0.01, 0.7, pytest.approx(0.2))


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_cosine_goes_from_the_rate_to_zero():
    schedule = learning_rate_schedule("cosine", 0.4, 100)
    np.testing.assert_allclose(rates(schedule, (0, 25, 50, 100, 120)), [
        0.4, 0.2 * (1 + np.sqrt(0.5)), 0.2, 0, 0], atol=1e-7)  # fmt: skip
    assert schedule(99) > 0


def test_warm_up_is_linear_and_the_cosine_takes_the_rest():
    schedule = learning_rate_schedule("cosine", 0.4, 100, warmup_steps=20)
    np.testing.assert_allclose(
        rates(schedule, (0, 5, 10, 20, 60, 100)), [0, 0.1, 0.2, 0.4, 0.2, 0], atol=1e-7
    )


def test_constant_rate_with_and_without_warm_up():
    assert learning_rate_schedule("constant", 0.4, 100) == 0.4
    schedule = learning_rate_schedule("constant", 0.4, 100, warmup_steps=20)
    np.testing.assert_allclose(
        rates(schedule, (0, 10, 20, 60, 100)), [0, 0.2, 0.4, 0.4, 0.4], atol=1e-7
    )


def test_warm_up_over_the_whole_run_ends_at_the_rate():
    schedule = learning_rate_schedule("cosine", 0.4, 10, warmup_steps=10)
    np.testing.assert_allclose(rates(schedule, (0, 5, 9, 10)), [0, 0.2, 0.36, 0.4], atol=1e-7)


def test_unknown_course_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        learning_rate_schedule("cosin", 0.4, 10)
