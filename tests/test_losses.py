"""Losses against naive loops."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq import losses


def test_cosine_of_known_angles():
    a = tf.constant([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    b = tf.constant([[5.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 7.0]])
    np.testing.assert_allclose(
        losses.cosine_similarity(a, b), [1, math.sqrt(0.5), -1, 0], atol=1e-7
    )


def test_negative_cosine_equals_a_naive_loop():
    random = np.random.default_rng(0)
    p, z = random.normal(size=(2, 5, 3))
    naive = -sum(
        sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        for a, b in zip(p, z, strict=True)
    )
    np.testing.assert_allclose(losses.negative_cosine(p, z), naive / 5, rtol=1e-12)


def test_target_is_detached_and_prediction_gets_the_gradient_of_the_cosine():
    p, z = tf.constant([[3.0, 4.0]], tf.float64), tf.constant([[1.0, 0.0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([p, z])
        loss = losses.negative_cosine(p, z)
    to_prediction, to_target = tape.gradient(loss, [p, z])
    assert to_target is None
    # d(-p0 / |p|) = -(1 / |p| - p0^2 / |p|^3), p0 p1 / |p|^3
    np.testing.assert_allclose(to_prediction, [[-(1 / 5 - 9 / 125), 12 / 125]], rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_embeddings_neither_overflow_nor_vanish(dtype):
    for value in (10.0, 1e-3):
        x = tf.cast(tf.fill([2, 2048], value), dtype)
        np.testing.assert_allclose(tf.cast(losses.negative_cosine(x, x), tf.float32), -1, atol=1e-2)
