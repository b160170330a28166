"""What is compiled into few passes computes what one operation after another does."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization import fused
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.ops import asymmetric_scale, fake_quantize
from tfcq.quantization.pact import clipped_quantize

SHAPE = (3, 16, 16, 16)


def quantized_and_gradients(x, upstream, ends, bits):
    with tf.GradientTape() as tape:
        tape.watch((x, *ends))
        scale, zero_point, top = asymmetric_scale(*ends, bits)
        y = fake_quantize(x, scale, zero_point, tf.zeros(()), top)
    return (y, *tape.gradient(y, (x, *ends), upstream))


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_values_and_gradients_are_those_of_separate_operations(bits, monkeypatch):
    x, upstream = (tf.random.stateless_normal(SHAPE, (seed, 0), alg="philox") for seed in (1, 2))
    # A tie, one beyond the range, and what overflows by the division.
    x = tf.tensor_scatter_nd_update(x, [[0, 0, 0, i] for i in range(3)], [0.5, 9.0, 3e38])
    arguments = x, upstream, (tf.constant(-0.9), tf.constant(1.3)), tf.constant(bits)
    assert fused.pays(x, tf.ones(()))
    found = tf.function(quantized_and_gradients)(*arguments)
    monkeypatch.setattr(fused, "LEAST_VALUES", 3 * 16**3)
    expected = tf.function(lambda *given: quantized_and_gradients(*given))(*arguments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("signed", [False, True])
def test_learned_clipping_is_that_of_separate_operations(signed, monkeypatch):
    x, upstream = (tf.random.stateless_normal(SHAPE, (seed, 0), alg="philox") for seed in (1, 2))
    # At the clipping, at zero, and a tie.
    x = tf.tensor_scatter_nd_update(x, [[0, 0, 0, i] for i in range(3)], [1.5, 0.0, 0.25])

    def clipped_and_gradients(x, clipping, bits):
        with tf.GradientTape() as tape:
            tape.watch((x, clipping))
            y = clipped_quantize(x, clipping, bits, signed)
        return (y, *tape.gradient(y, (x, clipping), upstream))

    arguments = x, tf.constant(1.5), tf.constant(2)
    assert fused.many_activations(x)
    found = tf.function(clipped_and_gradients)(*arguments)
    monkeypatch.setattr(fused, "LEAST_VALUES", 3 * 16**3)
    expected = tf.function(lambda *given: clipped_and_gradients(*given))(*arguments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def weights_and_gradient(weights, upstream, bits):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = MinMaxWeightQuantizer()(weights, bits, [0, 1, 2])
    return y, tape.gradient(y, weights, upstream)


def test_weights_and_their_gradient_are_those_of_separate_operations(monkeypatch):
    shape = (1, 2, 500, 100)
    weights, upstream = (tf.random.stateless_normal(shape, (i, 0), alg="philox") for i in (1, 2))
    # Two largest magnitudes of a channel share its gradient, and one of nothing but zeros has none.
    weights = tf.tensor_scatter_nd_update(weights, [[0, 0, 7, 3], [0, 1, 9, 3]], [9.0, -9.0])
    weights *= tf.cast(tf.range(100) != 4, tf.float32)
    arguments = weights, upstream, tf.constant(3)
    assert fused.pays(weights, tf.ones((1, 1, 1, 100)))
    found = tf.function(weights_and_gradient)(*arguments)
    monkeypatch.setattr(fused, "LEAST_WEIGHTS", 100_001)
    expected = tf.function(lambda *given: weights_and_gradient(*given))(*arguments)
    np.testing.assert_array_equal(found[0], expected[0])
    # Sums are added up in another order.
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "scales"),
    [
        (SHAPE, "float64", ()),
        ((3, 16, 16, 15), "float32", ()),
        ((1, 2, 500, 100), "float64", (1, 1, 1, 100)),
        ((1, 3, 333, 100), "float32", (1, 1, 1, 100)),
    ],
)
def test_small_tensors_and_other_dtypes_are_not_compiled(shape, dtype, scales):
    assert not fused.pays(tf.zeros(shape, dtype), tf.ones(scales, dtype))


def test_sizes_that_a_trace_does_not_know_are_not_compiled():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 64], tf.float32)])
    def trace(x):
        seen.append(fused.pays(x, tf.ones(())))

    trace(tf.zeros((1, 8, 8, 64)))
    assert seen == [False]
