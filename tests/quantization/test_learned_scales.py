"""LSQ and PACT: arithmetic by hand and by naive loops, first use of a row, odd tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization.lsq import (
    LSQActivationQuantizer,
    LSQWeightQuantizer,
    learned_step_quantize,
)
from tfcq.quantization.pact import PACTQuantizer, clipped_quantize


def built(quantizer, shape=(3, 2), axes=None, dtype=None):
    """Returns a layer's learned weight for a quantizer."""
    return quantizer.build(keras.layers.Layer(dtype=dtype), shape, axes)


def gradients(quantize, x, scale, upstream):
    """Returns y and its gradients for x and the scale, in float64."""
    tensors = [tf.constant(v, tf.float64) for v in (x, scale)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = quantize(*tensors)
    return y, *tape.gradient(y, tensors, tf.constant(upstream, tf.float64))


def naive_lsq(x, step_size, bits, signed, upstream):
    """LSQ, Eqs. 1 to 3, one number at a time."""
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    y, dx, ds = [], [], 0.0
    for value, up in zip(x, upstream, strict=True):
        ratio = value / step_size
        level = round(min(max(ratio, lowest), highest))
        y.append(level * step_size)
        inside = lowest <= ratio <= highest
        dx.append(up if inside else 0.0)
        ds += up * (level - ratio if inside else level)
    return y, dx, ds / (len(x) * highest) ** 0.5


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsq_equals_a_naive_loop(bits, signed):
    random = np.random.default_rng(bits)
    x, upstream = random.normal(size=40), random.normal(size=40)
    step_size = 2.0 / 2**bits
    ours = gradients(lambda x, s: learned_step_quantize(x, s, bits, signed), x, step_size, upstream)
    for received, expected in zip(
        ours, naive_lsq(x, step_size, bits, signed, upstream), strict=True
    ):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-12)


# At a = 2 and 2 bits the unsigned grid is 0, 2/3, 4/3, 2 and the signed one -2, 0, 2.
PACT_X = [-3.0, -2.0, -1.5, 0.0, 0.5, 1.2, 2.0, 7.0]
PACT_UPSTREAM = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7]


@pytest.mark.parametrize(
    ("signed", "y", "inside", "dclipping"),
    [
        (False, [0, 0, 0, 0, 2 / 3, 4 / 3, 2, 2], [0, 0, 0, 0, 1, 1, 0, 0], 1e6 + 1e7),
        (True, [-2, -2, -2, 0, 0, 2, 2, 2], [0, 0, 1, 1, 1, 1, 0, 0], 1e6 + 1e7 - 1 - 10),
    ],
)
def test_pact_values_and_gradients_are_those_of_the_formula(signed, y, inside, dclipping):
    received = gradients(lambda x, a: clipped_quantize(x, a, 2, signed), PACT_X, 2.0, PACT_UPSTREAM)
    expected = y, np.multiply(PACT_UPSTREAM, inside), dclipping
    for ours, theirs in zip(received, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_pact_equals_a_naive_loop():
    x = np.random.default_rng(0).normal(size=50) * 3
    y, *_ = gradients(lambda x, a: clipped_quantize(x, a, 4, False), x, 2.5, np.ones(50))
    expected = [round(min(max(v, 0.0), 2.5) * 15 / 2.5) * 2.5 / 15 for v in x]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_pact_clipping_starts_at_10_and_serves_all_bits():
    quantizer = PACTQuantizer()
    clipping = built(quantizer)
    assert (clipping.name, clipping.shape, float(clipping.value)) == ("clipping", (), 10.0)
    x = tf.constant([[4.0, 11.0, -1.0]])
    np.testing.assert_allclose(quantizer(x, 2, learned=clipping), [[10 / 3, 10, 0]], rtol=1e-6)
    # 10 * 102 / 255 is 4.
    np.testing.assert_allclose(quantizer(x, 8, learned=clipping), [[4, 10, 0]], rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("clipping", [-1.0, 0.0, 1e-44])
def test_pact_clipping_trained_to_zero_or_below_gives_zeros_and_can_grow_back(clipping, signed):
    x, clipping = tf.constant([0.0, 0.5, 3.0]), tf.constant(clipping)
    with tf.GradientTape() as tape:
        tape.watch(clipping)
        y = clipped_quantize(x, clipping, 4, signed)
    np.testing.assert_allclose(y, [0, 0, 0], atol=1e-37)
    # Where clipping and value are both zero, the upper side and, if signed, the lower one count.
    assert tape.gradient(y, clipping) >= 2


def test_row_of_unset_step_sizes_is_set_by_the_first_pass_that_uses_it_only():
    quantizer = LSQActivationQuantizer()
    step_sizes = built(quantizer)
    assert (step_sizes.name, step_sizes.shape) == ("step_size", (15,))
    assert not step_sizes.numpy().any()
    first = tf.constant([[1.0, 3.0]])
    quantizer(first, 4, learned=step_sizes)
    after_first = step_sizes.numpy()
    assert np.flatnonzero(after_first).tolist() == [2]
    # 2 mean|x| / sqrt(Qp)
    np.testing.assert_allclose(after_first[2], 2 * 2 / np.sqrt(15), rtol=1e-6)
    quantizer(10 * first, 4, learned=step_sizes)
    np.testing.assert_array_equal(step_sizes.numpy(), after_first)
    quantizer(10 * first, 16, learned=step_sizes)
    assert np.flatnonzero(step_sizes.numpy()).tolist() == [2, 14]


def test_gradient_reaches_the_row_in_the_pass_that_sets_it_and_later():
    quantizer = LSQWeightQuantizer()
    step_sizes = built(quantizer, (4, 3), [0])
    weights = tf.random.stateless_normal([4, 3], [1, 1])
    rows = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            y = quantizer(weights, 3, [0], learned=step_sizes)
        rows.append(tape.gradient(y, step_sizes.value).numpy())
    assert rows[0].shape == (15, 1, 3)
    assert np.all(rows[0][1] != 0)
    assert not np.delete(rows[0], 1, axis=0).any()
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize("bad", [0.0, -0.5])
def test_step_size_trained_to_zero_or_below_starts_anew(bad):
    quantizer = LSQWeightQuantizer()
    step_sizes = built(quantizer, (4, 2), [0])
    weights = tf.random.stateless_normal([4, 2], [1, 1])
    quantizer(weights, 3, [0], learned=step_sizes)
    value = step_sizes.numpy()
    changed = value.copy()
    changed[1, 0, 0] = bad
    step_sizes.assign(changed)
    quantizer(weights, 3, [0], learned=step_sizes)
    np.testing.assert_allclose(step_sizes.numpy(), value, rtol=1e-6)
    np.testing.assert_array_equal(step_sizes.numpy()[1, 0, 1], value[1, 0, 1])


def test_one_step_size_per_tensor_is_the_mean_over_all_channels():
    quantizer = LSQWeightQuantizer(per_channel=False)
    step_sizes = built(quantizer, (2, 2), [0])
    assert step_sizes.shape == (15,)
    weights = tf.constant([[1.0, -4.0], [0.0, 3.0]])
    quantizer(weights, 2, [0], learned=step_sizes)
    # Qp is 1 at 2 bits.
    assert step_sizes.numpy()[0] == 2 * 2.0


def test_fixed_bits_of_the_quantizer_choose_the_row():
    quantizer = LSQWeightQuantizer(bits=8)
    step_sizes = built(quantizer, (2, 2), [0])
    quantizer(tf.ones([2, 2]), 3, [0], learned=step_sizes)
    assert np.flatnonzero(step_sizes.numpy().any(axis=(1, 2))).tolist() == [8 - 2]


def test_all_zero_channel_stays_zero_and_its_step_size_unset():
    quantizer = LSQWeightQuantizer()
    step_sizes = built(quantizer, (2, 2), [0])
    weights = tf.constant([[0.0, 1.0], [0.0, -0.5]])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = quantizer(weights, 4, [0], learned=step_sizes)
    dx, dstep = tape.gradient(y, [weights, step_sizes.value])
    assert y.numpy()[:, 0].tolist() == [0.0, 0.0]
    assert dx.numpy()[:, 0].tolist() == [1.0, 1.0]
    assert dstep.numpy()[:, 0, 0].tolist() == [0.0] * 15
    assert step_sizes.numpy()[2, 0, 0] == 0 < step_sizes.numpy()[2, 0, 1]
    quantizer(weights + 1.0, 4, [0], learned=step_sizes)
    np.testing.assert_allclose(step_sizes.numpy()[2, 0, 0], 2 / np.sqrt(7), rtol=1e-6)


@pytest.mark.parametrize(
    "quantizer", [LSQActivationQuantizer(), LSQActivationQuantizer(signed=True), PACTQuantizer()]
)
@pytest.mark.parametrize("value", [0.0, 0.3, 1e-44, 1e30])
def test_constant_tensor_gives_finite_output_and_gradients(quantizer, value):
    scale, x = built(quantizer), tf.fill([3, 2], value)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x, 8, learned=scale)
    for tensor in (y, *tape.gradient(y, [x, scale.value])):
        assert np.all(np.isfinite(tensor))
    if value == 0.0:
        assert not y.numpy().any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("quantizer", "axes"),
    [(LSQWeightQuantizer(), [0]), (LSQActivationQuantizer(), None), (PACTQuantizer(), None)],
)
def test_tensors_and_scales_that_are_not_finite_are_refused(quantizer, axes, bad):
    scale = built(quantizer, (3, 2), axes)
    x = tf.constant([[1.0, 2.0], [bad, 3.0], [1.0, 1.0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in"):
        quantizer(x, 8, axes, learned=scale)
    scale.assign(np.full(scale.shape, bad))
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinity in a learned"):
        quantizer(tf.ones([3, 2]), 8, axes, learned=scale)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("quantizer", [LSQActivationQuantizer(), PACTQuantizer()])
def test_scales_are_float32_unless_the_model_is_float64(quantizer, dtype):
    scale = built(quantizer, dtype=dtype)
    expected = "float64" if dtype == "float64" else "float32"
    assert scale.dtype == expected
    x = tf.cast(tf.constant([[0.1, 0.7]]), dtype.removeprefix("mixed_"))
    y = quantizer(x, 8, learned=scale)
    assert y.dtype == x.dtype
    exact = built(quantizer)
    wide = quantizer(tf.cast(x, tf.float32), 8, learned=exact)
    np.testing.assert_allclose(
        tf.cast(y, tf.float32), tf.cast(tf.cast(wide, y.dtype), tf.float32), rtol=1e-6
    )


def test_training_the_step_size_lowers_the_quantization_error():
    quantizer = LSQWeightQuantizer()
    step_sizes = built(quantizer, (64, 4), [0])
    weights = tf.random.stateless_normal([64, 4], [5, 5])
    optimizer = keras.optimizers.SGD(20.0)
    errors = []
    for _ in range(20):
        with tf.GradientTape() as tape:
            difference = quantizer(weights, 2, [0], learned=step_sizes) - weights
            error = tf.reduce_mean(tf.square(difference))
        optimizer.apply([tape.gradient(error, step_sizes.value)], [step_sizes])
        errors.append(float(error))
    assert errors[-1] < 0.9 * errors[0]
    assert errors[1] < errors[0]
