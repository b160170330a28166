"""Linear and DoReFa quantizers: arithmetic by hand and by naive loops, odd tensors."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.quantization import ops
from tfcq.quantization.dorefa import DoReFaActivationQuantizer, DoReFaWeightQuantizer
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.linear import LinearActivationQuantizer, LinearWeightQuantizer


def with_gradient(quantize, x, upstream):
    x = tf.constant(x, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantize(x)
    return y.numpy(), tape.gradient(y, x, tf.constant(upstream, tf.float64)).numpy()


@pytest.mark.parametrize("bits", [2, 5, 8, 16])
@pytest.mark.parametrize(("options", "rounded"), [({}, round), ({"rounding": "floor"}, math.floor)])
def test_linear_equals_a_naive_loop_and_passes_the_gradient(bits, options, rounded):
    random = np.random.default_rng(bits)
    x, upstream = random.normal(size=60), random.normal(size=60)
    quantize = tf.function(lambda x: LinearWeightQuantizer(**options)(x, bits))
    y, dx = with_gradient(quantize, x, upstream)
    step = (x.max() - x.min()) / (2**bits - 1)
    assert y.tolist() == [step * rounded(value / step) for value in x]
    assert dx.tolist() == upstream.tolist()


def test_linear_activations_take_the_step_of_a_given_range_and_are_not_clipped():
    quantizer = LinearActivationQuantizer()
    ends = tf.constant(-1.0), tf.constant(2.0)
    # Their step is 1.
    y = quantizer(tf.constant([-7.5, 0.9, 5.1]), 2, ends=ends)
    assert y.numpy().tolist() == [-8.0, 1.0, 5.0]
    x = tf.random.stateless_normal([40], [1, 2])
    expected = LinearWeightQuantizer()(x, 3)
    np.testing.assert_array_equal(quantizer(x, 3, ends=ops.range_of(x)), expected)
    np.testing.assert_array_equal(quantizer(x, 3), expected)


def test_linear_by_hand():
    # S = (2 - -1) / 3 = 1, so the largest value stays and nothing is clipped.
    x = [-1.0, -0.1, 0.0, 0.9, 2.0]
    for rounding, expected in (("floor", [-1, -1, 0, 0, 2]), ("nearest", [-1, 0, 0, 1, 2])):
        y, dx = with_gradient(
            lambda x, r=rounding: LinearWeightQuantizer(rounding=r)(x, 2), x, np.ones(5)
        )
        assert y.tolist() == expected
        assert dx.tolist() == [1.0] * 5


def test_linear_stochastic_takes_the_two_neighbours_and_repeats_for_its_seed():
    quantizer = LinearWeightQuantizer(rounding="stochastic")
    x = tf.constant([0.0, *[1.25] * 200, 3.0])
    first, again = (quantizer(x, 2, seed=[1, 2]).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert set(first[1:-1]) == {1.0, 2.0}
    # Five standard errors around a quarter.
    assert abs(np.mean(first[1:-1] == 2.0) - 0.25) < 5 * (0.25 * 0.75 / 200) ** 0.5
    with pytest.raises(UserError, match="needs a seed"):
        quantizer(x, 2)
    with pytest.raises(UserError, match="Did you mean 'floor'"):
        LinearWeightQuantizer(rounding="flor")


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 1e30])
def test_linear_keeps_a_constant_tensor(value):
    x = tf.fill([3, 2], value)
    np.testing.assert_array_equal(LinearWeightQuantizer()(x, 4), x)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_dorefa_weights_equal_a_naive_loop(bits, wrap):
    random = np.random.default_rng(bits)
    x, upstream = random.normal(size=30), random.normal(size=30)
    y, dx = with_gradient(wrap(lambda x: DoReFaWeightQuantizer()(x, bits)), x, upstream)
    tanh, steps = [math.tanh(value) for value in x], 2**bits - 1
    largest = max(abs(t) for t in tanh)
    expected = [2 * round(steps * (t / (2 * largest) + 0.5)) / steps - 1 for t in tanh]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    # y = tanh(w) / largest without the rounding, and largest is tanh of the largest weight.
    gradient = [up * (1 - t * t) / largest for up, t in zip(upstream, tanh, strict=True)]
    peak = int(np.argmax(np.abs(x)))
    to_largest = -sum(up * t for up, t in zip(upstream, tanh, strict=True)) / largest**2
    gradient[peak] += to_largest * math.copysign(1 - tanh[peak] ** 2, x[peak])
    np.testing.assert_allclose(dx, gradient, rtol=0, atol=1e-12)


def test_dorefa_activations_are_clipped_and_rounded_to_even_steps():
    x, upstream = [-1.5, -0.4, 0.2, 0.6, 1.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    y, dx = with_gradient(lambda x: DoReFaActivationQuantizer()(x, 2), x, upstream)
    np.testing.assert_allclose(y, [0, 0, 1 / 3, 2 / 3, 1, 1], rtol=1e-12)
    assert dx.tolist() == [0, 0, 3, 4, 0, 0]
    signed = DoReFaActivationQuantizer(signed=True)
    y, dx = with_gradient(lambda x: signed(x, 3), x, upstream)
    np.testing.assert_allclose(y, [-1, -1 / 3, 1 / 3, 2 / 3, 1, 1], rtol=1e-12)
    assert dx.tolist() == [0, 2, 3, 4, 0, 0]


@pytest.mark.parametrize("value", [0.0, 1e-44, 0.5, -0.5, 1e30])
def test_dorefa_weights_of_one_value_give_finite_output_and_gradient(value):
    x = tf.fill([3, 2], value)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = DoReFaWeightQuantizer()(x, 4)
    assert np.all(np.isfinite(tape.gradient(y, x)))
    # 15 steps leave no middle; the even one above it stands for zero.
    expected = math.copysign(1, value) if abs(value) > 1e-30 else 2 * 8 / 15 - 1
    np.testing.assert_allclose(y, np.full((3, 2), expected), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "quantizer", [LinearWeightQuantizer(), DoReFaWeightQuantizer(), DoReFaActivationQuantizer()]
)
def test_tensors_that_are_not_finite_are_refused(quantizer, bad):
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in .* quantized"):
        quantizer(tf.constant([1.0, bad, 0.5]), 8)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@pytest.mark.parametrize(
    "quantizer", [LinearWeightQuantizer(), DoReFaWeightQuantizer(), DoReFaActivationQuantizer()]
)
def test_half_precision_computes_in_float32(quantizer, dtype):
    x = tf.cast(tf.random.stateless_normal([50, 4], [3, 4]), dtype)
    y = quantizer(x, 16)
    assert y.dtype == dtype
    expected = tf.cast(quantizer(tf.cast(x, tf.float32), 16), dtype)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("signed", [True, False])
def test_integer_levels(signed):
    for bits in (2, 8, 16):
        lowest, highest = ops.integer_levels(bits, signed, tf.float32)
        assert float(highest - lowest) == 2**bits - 1
        assert float(lowest) == (-(2 ** (bits - 1)) if signed else 0)


@pytest.mark.parametrize(
    ("kinds", "name", "options"),
    [
        (WEIGHT_QUANTIZERS, "linear", {"bits": 3, "rounding": "nearest"}),
        (WEIGHT_QUANTIZERS, "lsq", {"bits": 3, "per_channel": False}),
        (WEIGHT_QUANTIZERS, "dorefa", {"bits": 3}),
        (ACTIVATION_QUANTIZERS, "lsq", {"bits": 5, "signed": True}),
        (ACTIVATION_QUANTIZERS, "pact", {"bits": 5, "signed": True}),
        (ACTIVATION_QUANTIZERS, "dorefa", {"bits": 5, "signed": True}),
    ],
)
def test_quantizer_comes_back_from_its_configuration(kinds, name, options):
    quantizer = kinds[name](**options)
    assert quantizer.get_config() == options
    config = keras.saving.serialize_keras_object(quantizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is kinds[name]
    assert copy.__dict__ == quantizer.__dict__
    with pytest.raises(UserError, match="Bits 1 cannot be used"):
        kinds[name](bits=1)
