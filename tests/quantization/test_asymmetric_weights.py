"""Weights as SSQL prints them (Eqs. 2 to 5), against a naive loop."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization.minmax import AsymmetricWeightQuantizer


def naive(weights, bits):
    low, high = weights.min(), weights.max()
    step = (high - low) / (2**bits - 1)
    zero_point = -round(low / step)
    levels = [min(max(round(w / step) + zero_point, 0), 2**bits - 1) for w in weights.ravel()]
    return np.array([(level - zero_point) * step for level in levels]).reshape(weights.shape)


def gradient(quantizer, weights, upstream, bits):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = quantizer(weights, bits)
    return y.numpy(), tape.gradient(y, weights, upstream).numpy()


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_values_are_those_of_the_printed_equations_for_the_whole_tensor(bits):
    weights = tf.constant(np.random.default_rng(bits).normal(0.3, 1, (3, 3, 2, 4)))
    upstream = tf.constant(np.random.default_rng(9).normal(size=weights.shape))
    y, dx = gradient(AsymmetricWeightQuantizer(detach_scale=True), weights, upstream, bits)
    np.testing.assert_allclose(y, naive(weights.numpy(), bits), rtol=0, atol=1e-12)
    # Straight through where nothing was clipped: at the very ends of the range alone can it be.
    passed = dx == upstream.numpy()
    assert np.all(passed | (dx == 0)) and np.sum(~passed) <= 2


def test_the_gradient_also_flows_through_the_range_unless_it_is_detached():
    """The least and the greatest weight alone make the range."""
    weights = tf.constant(np.random.default_rng(0).normal(size=(50,)))
    upstream = tf.ones_like(weights)
    _, flowing = gradient(AsymmetricWeightQuantizer(), weights, upstream, 3)
    _, detached = gradient(AsymmetricWeightQuantizer(detach_scale=True), weights, upstream, 3)
    moved = np.flatnonzero(flowing != detached)
    assert set(moved) == {int(np.argmin(weights)), int(np.argmax(weights))}
    # y is homogeneous of degree 1 in the weights where the scale flows (Euler).
    y, _ = gradient(AsymmetricWeightQuantizer(), weights, upstream, 3)
    assert np.sum(flowing * weights.numpy()) == pytest.approx(np.sum(y), rel=1e-9)
