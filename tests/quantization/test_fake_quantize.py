"""Fake quantization: values and gradients worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.quantization import ops
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer

# With scale 0.5, zero point 1 and levels 0..3 the grid is -0.5, 0, 0.5, 1:
#          below   clipped   tie: 0.5 -> 0   tie: 1.5 -> 2   0.8 -> 1   above
X = [-2.0, -0.75 - 0.01, 0.25, 0.75, 0.4, 3.0]
Y = [-0.5, -0.5, 0.0, 1.0, 0.5, 1.0]
INSIDE = [False, False, True, True, True, False]


def gradients(x, scale, zero_point, upstream, lowest=0.0, highest=3.0, **options):
    """Returns y and its gradients for x, scale and zero point."""
    tensors = [tf.constant(v, tf.float64) for v in (x, scale, zero_point)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = ops.fake_quantize(
            *tensors,
            tf.constant(lowest, tf.float64),
            tf.constant(highest, tf.float64),
            **options,
        )
    return [y, *tape.gradient(y, tensors, tf.constant(upstream, tf.float64))]


def test_values_lie_on_the_grid_and_ties_go_to_even():
    y, *_ = gradients(X, 0.5, 1.0, np.ones(6))
    assert y.numpy().tolist() == Y


def test_gradient_passes_inside_and_stops_where_clipped():
    upstream = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    _, dx, _, _ = gradients(X, 0.5, 1.0, upstream)
    assert dx.numpy().tolist() == [0.0, 0.0, 3.0, 4.0, 5.0, 0.0]


def test_gradient_of_scale_is_rounding_error_inside_and_level_outside():
    # level - zero point: -1, -1, 0, 2, 1, 2; minus x / scale inside: 0.5, 1.5, 0.8.
    upstream = [1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0]
    _, _, dscale, _ = gradients(X, 0.5, 1.0, upstream)
    by_hand = -1 - 10 + (0 - 0.5) * 100 + (2 - 1.5) * 1000 + (1 - 0.8) * 10000 + 2 * 100000
    np.testing.assert_allclose(dscale, by_hand, rtol=1e-12)


def test_gradient_of_zero_point_is_minus_scale_where_clipped():
    _, _, _, dzero_point = gradients(X, 0.5, 1.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert dzero_point.numpy() == -0.5 * (1 + 2 + 6)


def test_gradients_of_scales_per_channel_are_summed_over_the_shared_axes_only():
    x = np.array([[0.3, 0.3], [-9.0, 1.1]])
    scale = np.array([[1.0, 0.5]])
    _, dx, dscale, dzero_point = gradients(x, scale, np.zeros((1, 2)), np.ones((2, 2)), -2.0, 1.0)
    assert dx.numpy().tolist() == [[1.0, 1.0], [0.0, 0.0]]
    # Channel 0: 0 - 0.3 inside, -2 below. Channel 1: 0.6 -> 1, so 1 - 0.6; 2.2 -> 1 above.
    np.testing.assert_allclose(dscale, [[-0.3 - 2.0, 0.4 + 1.0]], rtol=1e-12)
    np.testing.assert_allclose(dzero_point, [[-1.0, -0.5]], rtol=1e-12)


def test_straight_through_round_rounds_half_to_even_and_passes_the_gradient():
    x = tf.constant([-1.5, -0.5, 0.5, 1.5, 2.5, 2.6])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.straight_through_round(x)
    assert y.numpy().tolist() == [-2.0, 0.0, 0.0, 2.0, 2.0, 3.0]
    assert tape.gradient(y, x, tf.range(6.0)).numpy().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_floor_rounds_down_on_both_sides_of_zero():
    y, dx, dscale, _ = gradients(
        [-0.1, 0.1, 0.9, 1.9], 1.0, 0.0, np.ones(4), -4, 3, rounding="floor"
    )
    assert y.numpy().tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert dx.numpy().tolist() == [1.0] * 4
    np.testing.assert_allclose(dscale, (-1 + 0.1) - 0.1 - 0.9 + (1 - 1.9), rtol=1e-12)


def stochastic(x, seed):
    one = tf.constant(1.0, tf.float64)
    return ops.fake_quantize(
        tf.constant(x, tf.float64), one, 0 * one, -8 * one, 7 * one, "stochastic", seed
    )


def test_stochastic_rounding_is_unbiased_and_takes_the_two_neighbours():
    fractions = np.array([0.1, 0.5, 0.85, 0.0])
    base = np.array([2.0, -3.0, 0.0, 4.0])
    draws = 4000
    # One seed rounds a whole tensor, so the draws of 40 seeds stand in 100 rows each.
    rows = np.tile(base + fractions, (draws // 40, 1))
    drawn = np.concatenate([stochastic(rows, [seed, 7]).numpy() for seed in range(40)])
    up = drawn - base
    assert set(np.unique(up)) == {0.0, 1.0}
    assert not up[:, 3].any()
    # Five standard errors of a mean of independent draws.
    bound = 5 * np.sqrt(fractions * (1 - fractions) / draws)
    assert np.all(np.abs(up.mean(axis=0) - fractions) <= bound)


def test_stochastic_rounding_repeats_for_the_same_seed_only():
    x = np.linspace(-3, 3, 101)
    first = stochastic(x, [1, 2]).numpy()
    np.testing.assert_array_equal(first, stochastic(x, [1, 2]))
    assert np.any(first != stochastic(x, [1, 3]).numpy())


def test_stochastic_rounding_without_a_seed_is_refused():
    with pytest.raises(UserError, match="needs a seed"):
        stochastic([1.0], None)


def test_unknown_rounding_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'nearest'"):
        gradients([1.0], 1.0, 0.0, [1.0], rounding="neerest")
    for quantizer in (MinMaxWeightQuantizer, MinMaxActivationQuantizer):
        with pytest.raises(UserError, match="Did you mean 'floor'"):
            quantizer(rounding="flor")


@pytest.mark.parametrize(
    ("bits", "narrow", "lowest", "highest"),
    [(2, False, -2, 1), (2, True, -1, 1), (8, False, -128, 127), (8, True, -127, 127),
     (16, False, -32768, 32767)],
)  # fmt: skip
def test_signed_levels(bits, narrow, lowest, highest):
    levels = ops.symmetric_levels(tf.constant(bits), narrow, tf.float32)
    assert [float(level) for level in levels] == [lowest, highest]


def test_narrow_range_scales_by_the_highest_level_and_keeps_the_largest_weight():
    weights = tf.constant([[-0.7, 0.2], [0.35, 2.1]], tf.float64)
    scale = ops.symmetric_scale(weights, 4, [0], narrow_range=True)
    np.testing.assert_allclose(scale, [[0.1, 0.3]], rtol=1e-12)
    quantized = MinMaxWeightQuantizer(narrow_range=True)(weights, 4, [0])
    np.testing.assert_allclose(quantized, [[-0.7, 0.3], [0.4, 2.1]], rtol=1e-12)


def test_one_scale_per_tensor_or_per_channel():
    weights = tf.constant([[3.0, 0.3], [-1.5, -0.15]], tf.float64)
    per_channel = MinMaxWeightQuantizer()(weights, 2, [0])
    per_tensor = MinMaxWeightQuantizer(per_channel=False)(weights, 2, [0])
    # Scales 2 and 0.2, and ties go to even: 1.5 -> 2 -> clipped to 1, -0.75 -> -1.
    np.testing.assert_allclose(per_channel, [[2.0, 0.2], [-2.0, -0.2]], rtol=1e-12)
    np.testing.assert_allclose(per_tensor, [[2.0, 0.0], [-2.0, 0.0]], rtol=1e-12)


def numerical_gradient(function, x, step=1e-6):
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        result[index] = (float(function(moved[0])) - float(function(moved[1]))) / (2 * step)
    return result


def test_gradient_through_the_scale_equals_the_numerical_one_of_the_surrogate():
    # Rounding errors are taken as constants: y = (x / s + e) s inside, level s outside.
    weights = np.array([[1.0, -0.31], [0.52, 0.93], [-0.28, 0.41]])
    upstream = np.array([[0.3, -1.2], [0.7, 0.4], [-0.9, 2.0]])
    bits, levels = 3, (-4, 3)
    scale = np.abs(weights).max(axis=0, keepdims=True) / 3.5
    rounded = np.round(weights / scale)
    level = np.clip(rounded, *levels)
    error, inside = rounded - weights / scale, rounded == level
    assert not inside.all() and inside.any()

    def surrogate(x):
        s = np.abs(x).max(axis=0, keepdims=True) / 3.5
        return np.sum(upstream * np.where(inside, x + error * s, level * s))

    x = tf.constant(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinMaxWeightQuantizer()(x, bits, [0])
    np.testing.assert_allclose(y, level * scale, atol=1e-15)
    by_hand = numerical_gradient(surrogate, weights)
    np.testing.assert_allclose(tape.gradient(y, x, upstream), by_hand, atol=1e-8)


def test_gradient_through_the_scale_equals_the_numerical_one_where_levels_stay():
    # Moving only the largest weight of a channel moves the others' grid: that part is smooth.
    weights = np.array([1.0, 0.4, -0.27])
    upstream = np.array([0.0, 1.0, 1.0])

    def loss(x):
        return tf.reduce_sum(
            MinMaxWeightQuantizer()(tf.constant(x[:, None]), 4, [0])[:, 0] * upstream
        )

    x = tf.constant(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinMaxWeightQuantizer()(x[:, None], 4, [0])
    straight_through = tape.gradient(y, x, upstream[:, None]).numpy()
    # By hand: levels 3 and -2 of scale w0 / 7.5, minus what straight-through gives to w1 and w2.
    assert math.isclose(numerical_gradient(loss, weights)[0], (3 - 2) / 7.5, rel_tol=1e-7)
    by_hand = ((3 - 0.4 * 7.5) + (-2 + 0.27 * 7.5)) / 7.5
    np.testing.assert_allclose(straight_through, [by_hand, 1, 1], atol=1e-12)


@pytest.mark.parametrize("axes", [None, [0], [1]])
def test_largest_magnitude_has_the_value_and_gradient_of_tensorflows_own(axes):
    # The gradient is shared where several reach it, and no other value has any.
    x = tf.constant([[2.0, -2.0, 1.0, 2.0], [-3.0, 2.0, 1.0, 0.0], [-3.0, 1.0, -1.0, 0.5]])
    functions = (
        lambda x: ops.largest_magnitude(x, axes),
        lambda x: tf.reduce_max(tf.abs(x), axis=axes, keepdims=axes is not None),
    )
    found = []
    for function in functions:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        upstream = 1.0 + tf.reshape(tf.range(tf.size(y), dtype=y.dtype), tf.shape(y))
        found.append((y, tape.gradient(y, x, upstream)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_detached_scale_leaves_only_the_straight_through_gradient():
    x = tf.constant([[1.0], [0.4], [-0.27]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinMaxWeightQuantizer(detach_scale=True)(x, 4, [0])
    # The largest weight, 7.5 scales, rounds to 8 and is clipped.
    assert tape.gradient(y, x).numpy().tolist() == [[0.0], [1.0], [1.0]]


def gradient_of_range(detach_scale: bool):
    ends = tf.constant([-1.0, 2.0], tf.float64)
    quantizer = MinMaxActivationQuantizer(detach_scale=detach_scale)
    with tf.GradientTape() as tape:
        tape.watch(ends)
        y = quantizer(tf.constant([0.3, 5.0], tf.float64), 2, ends=(ends[0], ends[1]))
    return tape.gradient(y, ends)


def test_gradient_flows_into_a_range_that_is_not_detached():
    # Scale 1, zero point 1. 0.3 is inside: dy/ds = -0.3; 5 is clipped: dy/ds = 2, dy/dz = -1.
    # s = (max - min) / 3 and, straight through, z = -min / s: dz/dmin = -1 + 1/3, dz/dmax = -1/3.
    by_hand = [1.7 * -1 / 3 - (-1 + 1 / 3), 1.7 / 3 - -1 / 3]
    np.testing.assert_allclose(gradient_of_range(False), by_hand, rtol=1e-12)


def test_no_gradient_flows_into_a_detached_range():
    assert gradient_of_range(True) is None


def test_quantizers_come_back_from_their_configuration():
    weights = MinMaxWeightQuantizer(3, False, True, "floor", True)
    assert weights.get_config() == {
        "bits": 3, "per_channel": False, "narrow_range": True, "rounding": "floor",
        "detach_scale": True,
    }  # fmt: skip
    assert MinMaxWeightQuantizer.from_config(weights.get_config()).__dict__ == weights.__dict__
    activations = MinMaxActivationQuantizer(5, "floor", False)
    config = activations.get_config()
    assert config == {"bits": 5, "rounding": "floor", "detach_scale": False}
    assert MinMaxActivationQuantizer.from_config(config).__dict__ == activations.__dict__
