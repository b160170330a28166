"""Losses against naive loops."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.pretraining.nt_xent import nt_xent
from tfcq.pretraining import losses


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


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-7, 1e-6, 1e-5, 1e-3, 1.0])
def test_gradient_of_a_short_prediction_is_bounded(length):
    p, z = length * tf.constant([[0.6, 0.8, 0.0]]), tf.constant([[0.0, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(p)
        loss = losses.negative_cosine(p, z)
    # Across the prediction, a gradient is 1 / |p|; along it, there is none.
    expected = min(1 / length, 1000.0) if length >= 1e-6 else 1e9 * length
    np.testing.assert_allclose(tape.gradient(loss, p), [[0, 0, -expected]], rtol=1e-5)


def rows(seed, count=4, width=3):
    return np.random.default_rng(seed).normal(size=(count, width))


def unit(row):
    return [value / math.hypot(*row) for value in row]


def similarity(a, b, temperature):
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True)) / temperature


def naive_cross_entropy(positive, every):
    """-log(exp(positive) / sum of exp(every)), each a similarity over the temperature."""
    return -math.log(math.exp(positive) / sum(map(math.exp, every)))


def naive_nt_xent(view1, view2, temperature):
    views, count = [*view1, *view2], len(view1)
    total = 0.0
    for i, anchor in enumerate(views):
        positive = similarity(anchor, views[(i + count) % (2 * count)], temperature)
        others = [similarity(anchor, v, temperature) for j, v in enumerate(views) if j != i]
        total += naive_cross_entropy(positive, others)
    return total / (2 * count)


def naive_info_nce(queries, keys, temperature):
    total = 0.0
    for i, query in enumerate(queries):
        every = [similarity(query, key, temperature) for key in keys]
        total += naive_cross_entropy(every[i], every)
    return total / len(queries)


def naive_queue_info_nce(queries, keys, queue, temperature):
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = similarity(query, key, temperature)
        negatives = [similarity(query, negative, temperature) for negative in queue]
        total += naive_cross_entropy(positive, [positive, *negatives])
    return total / len(queries)


def naive_normalized_mse(predictions, targets):
    total = 0.0
    for p, z in zip(predictions, targets, strict=True):
        total += sum((x - y) ** 2 for x, y in zip(unit(p), unit(z), strict=True))
    return total / len(predictions)


def info_nce(queries, keys, temperature):
    return losses.contrastive_cross_entropy(queries, keys, range(len(queries)), temperature)


QUEUE = rows(9, 7)
NAIVE = {
    "nt_xent": (lambda a, b: nt_xent(a, b, 0.5), lambda a, b: naive_nt_xent(a, b, 0.5)),
    "info_nce": (lambda a, b: info_nce(a, b, 0.2), lambda a, b: naive_info_nce(a, b, 0.2)),
    "queue": (
        lambda a, b: losses.queue_info_nce(a, b, QUEUE, 0.2),
        lambda a, b: naive_queue_info_nce(a, b, QUEUE, 0.2),
    ),
    "byol": (losses.normalized_mse, naive_normalized_mse),
}


@pytest.mark.parametrize("name", NAIVE)
def test_loss_and_gradient_equal_a_naive_double_loop(name):
    ours, naive = NAIVE[name]
    a, b = rows(0), rows(1)
    anchors = tf.constant(a)
    with tf.GradientTape() as tape:
        tape.watch(anchors)
        loss = ours(anchors, tf.constant(b))
    np.testing.assert_allclose(loss, naive(a, b), rtol=1e-12)
    gradient, step = tape.gradient(loss, anchors).numpy(), 1e-6
    for place in np.ndindex(a.shape):
        moved = [a.copy(), a.copy()]
        moved[0][place] -= step
        moved[1][place] += step
        slope = (naive(moved[1], b) - naive(moved[0], b)) / (2 * step)
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAIVE)
def test_loss_does_not_depend_on_the_order_of_the_batch_or_the_length_of_rows(name):
    ours, (a, b) = NAIVE[name][0], (rows(2), rows(3))
    order, lengths = [2, 0, 3, 1], np.array([[0.5], [2], [3], [7]])
    expected = ours(tf.constant(a), tf.constant(b))
    np.testing.assert_allclose(ours(a[order], b[order]), expected, rtol=1e-12)
    np.testing.assert_allclose(ours(a * lengths, b / lengths), expected, rtol=1e-12)


def test_nt_xent_does_not_depend_on_which_view_is_first():
    a, b = rows(4), rows(5)
    np.testing.assert_allclose(nt_xent(a, b, 0.3), nt_xent(b, a, 0.3), rtol=1e-12)


def test_contrastive_losses_at_the_limits_of_the_temperature():
    a, b = rows(6), rows(7)
    # Very hot: every candidate is as good as any other.
    np.testing.assert_allclose(nt_xent(a, b, 1e9), math.log(2 * 4 - 1), rtol=1e-6)
    np.testing.assert_allclose(info_nce(a, b, 1e9), math.log(4), rtol=1e-6)
    hot = losses.queue_info_nce(a, b, QUEUE, 1e9)
    np.testing.assert_allclose(hot, math.log(1 + len(QUEUE)), rtol=1e-6)
    # Very cold: a positive nearer than every negative costs nothing.
    assert float(nt_xent(a, a, 1e-3)) < 1e-6


def test_identical_embeddings_cost_the_logarithm_of_the_candidates():
    same = np.ones((4, 3))
    np.testing.assert_allclose(nt_xent(same, same, 0.1), math.log(7), rtol=1e-12)
    np.testing.assert_allclose(losses.normalized_mse(same, same), 0, atol=1e-12)


def test_keys_and_queue_are_detached():
    a, b, queue = tf.constant(rows(0)), tf.constant(rows(1)), tf.constant(QUEUE)
    with tf.GradientTape() as tape:
        tape.watch([b, queue])
        loss = losses.queue_info_nce(a, b, queue, 0.2)
    assert tape.gradient(loss, [b, queue]) == [None, None]
