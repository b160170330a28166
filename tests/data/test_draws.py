"""Draws of a batch, against those that TensorFlow makes one by one."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.draws import uniform_draws


@pytest.mark.parametrize("seed", [(0, 0), (-5, 2**62 + 3)])
@pytest.mark.parametrize("shape", [(2, 13), (4,)])
def test_draws_are_those_of_tensorflow_to_the_last_bit(seed, shape):
    indices = [0, 1, 2**31, 2**40 + 3, -1]
    found = uniform_draws(tf.constant(seed, tf.int64), tf.constant(indices, tf.int64), shape)
    for index, draws in zip(indices, found, strict=True):
        folded = tf.random.experimental.stateless_fold_in(
            tf.constant(seed, tf.int64), tf.constant(index, tf.int64), alg="philox"
        )
        expected = tf.random.stateless_uniform(shape, folded, alg="philox")
        np.testing.assert_array_equal(draws, expected)
