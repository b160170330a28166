"""Noise is TensorFlow's own, to the last bit."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization.noise import uniform


@pytest.mark.parametrize("shape", [[], [5], [3, 7], [2, 3, 100]])
@pytest.mark.parametrize("seed", [[0, 0], [3, 4], [-1, 2**31 - 1]])
def test_noise_is_what_a_graph_draws(shape, seed):
    expected = tf.random.stateless_uniform(shape, seed, alg="philox")
    np.testing.assert_array_equal(uniform(shape, seed), expected)
