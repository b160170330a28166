"""One float pass gives every activation range, at any bits and by any method."""

import numpy as np
import pytest
import tensorflow as tf

from tests.post_training.networks import layer_named, quantizable_network, small_images
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.post_training.histogram import Histogram
from tfcq.post_training.observation import activation_quantizers, calibration_images, observe
from tfcq.post_training.ranges import (
    RANGES,
    Observation,
    entropy_range,
    moving_average_range,
    mse_range,
    percentile_range,
)
from tfcq.quantization import ops
from tfcq.settings.policies import PAPER


def observation_of(*batches, bins=2048):
    observation = Observation(Histogram(bins))
    for batch in batches:
        observation.add(np.asarray(batch, np.float32))
    return observation


def rounding_error(values, ends, bits):
    low, high = (tf.constant(end, tf.float32) for end in ends)
    scale, zero_point, top = ops.asymmetric_scale(low, high, bits)
    rounded = ops.fake_quantize(tf.constant(values), scale, zero_point, tf.zeros(()), top)
    return float(np.sum((rounded.numpy().astype(np.float64) - values) ** 2))


def test_histogram_counts_by_hand():
    histogram = Histogram(4)
    histogram.add([0.0, 0.25, 0.5, 0.75])
    assert (histogram.width, histogram.first) == (0.25, 0)
    np.testing.assert_array_equal(histogram.counts, [1, 1, 1, 1])
    # Five bins of 0.25 do not fit: pairs merge, the new value goes below zero.
    histogram.add([-0.25])
    assert (histogram.width, histogram.first) == (0.5, -1)
    np.testing.assert_array_equal(histogram.counts, [1, 2, 2])
    np.testing.assert_array_equal(histogram.sums, [-0.25, 0.25, 1.25])


def test_histogram_does_not_depend_on_the_batches():
    values = np.random.default_rng(0).normal(0.3, [[0.01], [1], [30]], (3, 500))
    whole = Histogram(64)
    whole.add(values)
    for order in (values, values[::-1]):
        parts = Histogram(64)
        for part in order:
            parts.add(part)
        assert (parts.width, parts.first) == (whole.width, whole.first)
        np.testing.assert_array_equal(parts.counts, whole.counts)
        np.testing.assert_allclose(parts.sums, whole.sums, rtol=1e-12, atol=1e-9)
    assert 32 < len(whole.counts) <= 64 and whole.counts.sum() == 1500
    expected, _ = np.histogram(
        values, (whole.first + np.arange(len(whole.counts) + 1)) * whole.width
    )
    np.testing.assert_array_equal(whole.counts, expected)


@pytest.mark.parametrize("value", [0.0, 1e6, -3.0])
def test_a_constant_tensor_keeps_its_range(value):
    for method, range_of in RANGES.items():
        np.testing.assert_allclose(
            range_of(observation_of([value] * 5), 4), (value, value), rtol=1e-5, err_msg=method
        )


def test_minmax_is_calibration_and_one_pass_serves_all_bits():
    images = small_images()
    model = quantizable_network()
    calibrate(model, images, batch_size=16)
    expected = [(q.minimum.numpy(), q.maximum.numpy()) for q in activation_quantizers(model)]
    observations = observe(model, images, batch_size=16)
    for bits in (8, 3):
        for method in RANGES:
            observations.set_ranges(method, bits)
    observations.set_ranges("minmax", 8)
    found = [(q.minimum.numpy(), q.maximum.numpy()) for q in activation_quantizers(model)]
    assert len(found) == 6
    np.testing.assert_array_equal(found, expected)


def test_every_value_that_a_quantizer_sees_is_counted():
    model = quantizable_network()
    for layer, observation in observe(model, small_images(7), batch_size=3).seen:
        assert observation.histogram.counts.sum() == 7 * np.prod(layer.input.shape[1:])
        assert len(observation.batch_minima) == 3


def test_moving_average_by_hand():
    observation = observation_of([0, 1], [-1, 3], [0, 1])
    low = 0.9 * (0.9 * 0 + 0.1 * -1) + 0.1 * 0
    high = 0.9 * (0.9 * 1 + 0.1 * 3) + 0.1 * 1
    np.testing.assert_allclose(moving_average_range(observation, 8), (low, high))


def test_percentile_is_that_of_the_values():
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    observation = observation_of(values)
    ends = percentile_range(observation, 8)
    np.testing.assert_allclose(
        ends, np.percentile(values, [0.01, 99.99]), atol=2 * observation.histogram.width
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "rectified", "positive", "negative"])
def test_mse_range_is_no_worse_than_minmax_and_near_the_best_of_a_dense_search(kind, bits):
    values = np.random.default_rng(1).standard_t(4, 4000).astype(np.float32)
    values = {
        "normal": values,
        "rectified": np.maximum(values, 0),
        "positive": 5 + np.abs(values),
        "negative": -1 - np.abs(values),
    }[kind]
    observation = observation_of(values)
    ends = mse_range(observation, bits)
    found = rounding_error(values, ends, bits)
    assert found <= rounding_error(values, observation.ends, bits) * 1.0001
    if kind == "rectified":
        tops = np.linspace(0.02, 1, 400) * values.max()
        best = min(rounding_error(values, (0.0, top), bits) for top in tops)
        assert found <= 1.03 * best
        if bits == 3:
            assert found < 0.5 * rounding_error(values, observation.ends, bits)


@pytest.mark.parametrize(
    "kind", [lambda x: np.maximum(x, 0), lambda x: x, lambda x: -np.abs(x)],
    ids=["rectified", "signed", "negative"],
)  # fmt: skip
def test_entropy_range_matches_a_naive_search(kind):
    values = kind(np.random.default_rng(2).standard_t(3, 5000)).astype(np.float32)
    observation = observation_of(values, bins=128)
    means, counts = observation.histogram.representatives()
    # Values from zero on, half of all where rectified, count as often as those just above them.
    for zero in [i for i, mean in enumerate(means) if 0 <= mean < observation.histogram.width]:
        assert counts[zero] > 2000 or values.min() < 0
        counts[zero] = counts[zero + 1]
    best, least = None, np.inf
    for factor in np.linspace(1, 8 / len(means), 100):
        # An end beyond which zero lies stays.
        low, high = observation.ends
        low, high = low * factor if low < 0 else low, high * factor if high > 0 else high
        kept = [i for i, mean in enumerate(means) if low <= mean <= high]
        if len(kept) < 2:
            continue
        p = [counts[i] for i in kept]
        p[0] += sum(counts[: kept[0]])
        p[-1] += sum(counts[kept[-1] + 1 :])
        scale = (high - low) / 7
        zero_point = -round(low / scale)
        levels = [min(7, max(0, round(means[i] / scale) + zero_point)) for i in kept]
        q = []
        for level in levels:
            same = [counts[i] for i, other in zip(kept, levels, strict=True) if other == level]
            q.append(sum(same) / len(same))
        p, q = np.divide(p, sum(p)), np.divide(q, sum(q))
        divergence = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        if divergence < least:
            best, least = (low, high), divergence
    np.testing.assert_allclose(entropy_range(observation, 3), best)
    assert np.ptp(best) < 0.9 * np.ptp(observation.ends)


def test_quantizers_with_fixed_bits_get_a_range_for_theirs():
    images = small_images()
    model = quantizable_network(PAPER)
    observations = observe(model, images)
    stem = layer_named(model, "stem_quantizer")
    assert stem.quantizer.bits == 8
    seen = dict((layer.name, observation) for layer, observation in observations.seen)
    observations.set_ranges("mse", 2)
    np.testing.assert_allclose(stem.maximum.numpy(), mse_range(seen[stem.name], 8)[1], rtol=1e-6)
    inner = layer_named(model, "first_relu_quantizer")
    np.testing.assert_allclose(inner.maximum.numpy(), mse_range(seen[inner.name], 2)[1], rtol=1e-6)
    assert mse_range(seen[inner.name], 2)[1] < 0.95 * mse_range(seen[inner.name], 8)[1]


def test_calibration_images_are_drawn_once_each_and_by_seed():
    images = np.arange(20).reshape(20, 1, 1, 1)
    drawn = calibration_images(images, 8, seed=3)
    assert len(set(drawn.ravel())) == 8
    np.testing.assert_array_equal(drawn, calibration_images(images, 8, seed=3))
    assert not np.array_equal(drawn, calibration_images(images, 8, seed=4))
    np.testing.assert_array_equal(calibration_images(images, 20), images)
    with pytest.raises(UserError, match="21 calibration images.*1 to 20"):
        calibration_images(images, 21)


@pytest.mark.parametrize("kind", ["lsq", "pact", "linear", "dorefa"])
def test_other_activation_quantizers_are_refused(kind):
    model = quantizable_network(PAPER.with_quantizers(None, kind))
    with pytest.raises(UserError, match="no range to calibrate"):
        observe(model, small_images(2))


def test_unknown_methods_bins_and_images_are_refused():
    model, images = quantizable_network(), small_images(3)
    with pytest.raises(UserError, match="Did you mean 'minmax'"):
        observe(model, images).set_ranges("min-max", 4)
    with pytest.raises(UserError, match="The nearest is 16"):
        observe(model, images, bins=2)
    with pytest.raises(UserError, match="0 images"):
        observe(model, images[:0])
    images[0, 0, 0] = np.inf
    with pytest.raises(UserError, match="infinity"):
        observe(model, images)
