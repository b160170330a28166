"""What is compiled into one pass has the bits of one operation after another."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization import fused
from tfcq.quantization.ops import asymmetric_scale, fake_quantize

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


@pytest.mark.parametrize(
    ("shape", "dtype", "scales"),
    [(SHAPE, "float64", ()), ((3, 16, 16, 15), "float32", ()), (SHAPE, "float32", (1, 1, 1, 16))],
)
def test_small_tensors_many_scales_and_other_dtypes_are_not_compiled(shape, dtype, scales):
    assert not fused.pays(tf.zeros(shape, dtype), tf.ones(scales, dtype))


def test_sizes_that_a_trace_does_not_know_are_not_compiled():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 64], tf.float32)])
    def trace(x):
        seen.append(fused.pays(x, tf.ones(())))

    trace(tf.zeros((1, 8, 8, 64)))
    assert seen == [False]
