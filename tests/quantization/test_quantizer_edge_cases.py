"""Zero, constant, non-finite and half-precision tensors."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization import ops
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer

BITS = [2, 4, 8, 16]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("detach_scale", [True, False])
def test_all_zero_channel_stays_zero_with_finite_gradient(bits, detach_scale):
    x = tf.constant([[0.0, 1.0], [0.0, -0.5]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinMaxWeightQuantizer(detach_scale=detach_scale)(x, bits, [0])
    assert y.numpy()[:, 0].tolist() == [0.0, 0.0]
    gradient = tape.gradient(y, x).numpy()
    assert gradient[:, 0].tolist() == [1.0, 1.0]
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 7.3e-20, 1e30, -3.0])
def test_constant_tensor_is_represented_exactly(bits, value):
    x = tf.fill([3, 2], tf.constant(value, tf.float32))
    quantizer = MinMaxActivationQuantizer()
    y = quantizer(x, bits, ends=ops.range_of(x))
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("value", [1e-42, 1e-44])
def test_values_too_small_to_scale_give_finite_output(value):
    x = tf.constant([[value], [-value / 2]])
    assert np.all(np.isfinite(MinMaxWeightQuantizer()(x, 8, [0])))
    quantizer = MinMaxActivationQuantizer()
    y = quantizer(x, 8, ends=ops.range_of(x))
    assert np.all(np.isfinite(y))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_that_are_not_finite_are_refused(bad, per_channel):
    x = tf.constant([[1.0, 2.0], [bad, 3.0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in weights"):
        MinMaxWeightQuantizer(per_channel=per_channel)(x, 8, [0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_range_that_is_not_finite_is_refused(bad):
    x = tf.constant([1.0, bad, 3.0])
    ends = tf.reduce_min(x), tf.reduce_max(x)
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in an activation"):
        MinMaxActivationQuantizer().parameters(8, *ends)


def test_range_wider_than_float32_is_refused_instead_of_overflowing():
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in an activation"):
        ops.asymmetric_scale(tf.constant(-3e38), tf.constant(3e38), 8)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_computes_in_float32(dtype):
    x = tf.cast(tf.random.stateless_normal([50, 4], [3, 4]), dtype)
    exact = tf.cast(x, tf.float32)
    assert ops.symmetric_scale(x, 8, [0]).dtype == tf.float32
    weights = MinMaxWeightQuantizer()(x, 8, [0])
    assert weights.dtype == dtype
    expected = tf.cast(MinMaxWeightQuantizer()(exact, 8, [0]), dtype)
    np.testing.assert_array_equal(weights, expected)
    quantizer = MinMaxActivationQuantizer()
    # 16 bits are more levels than a half has: in half arithmetic the zero point would overflow.
    ends = tf.reduce_min(x), tf.reduce_max(x)
    assert [p.dtype for p in quantizer.parameters(16, *ends)] == [tf.float32] * 3
    activations = quantizer(x, 16, ends=ends)
    assert activations.dtype == dtype
    np.testing.assert_array_equal(activations, tf.cast(quantizer(exact, 16, ends=ends), dtype))


def test_float64_follows():
    x = tf.constant([1.0, 1 / 3, -0.2], tf.float64)[:, None]
    assert ops.symmetric_scale(x, 8, [0]).dtype == tf.float64
    scale = float(ops.symmetric_scale(x, 8, [0])[0, 0])
    assert scale == 1 / 127.5
    y = MinMaxWeightQuantizer()(x, 8, [0])
    assert y.dtype == tf.float64
    assert y.numpy()[:, 0].tolist() == [127 * scale, 42 * scale, -26 * scale]
    parameters = MinMaxActivationQuantizer().parameters(8, x[2, 0], x[0, 0])
    assert [p.dtype for p in parameters] == [tf.float64] * 3
    assert float(parameters[0]) == (1.0 - -0.2) / 255
