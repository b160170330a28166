"""LARS against a naive implementation in float64, and its invariants."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.training.lars import LARS, trust_ratio

NAMES = ("kernel", "bias", "gamma", "beta", "weight_step_size")


def made(dtype="float32"):
    """Returns variables and their first values, the same each time."""
    random = np.random.default_rng(0)
    shapes = [(3, 2), (2,), (2,), (2,), ()]
    values = [random.normal(size=shape) for shape in shapes]
    variables = [
        keras.Variable(value, dtype=dtype, name=name)
        for value, name in zip(values, NAMES, strict=True)
    ]
    return variables, values


def gradients(steps):
    random = np.random.default_rng(1)
    _, values = made()
    return [[random.normal(size=value.shape) for value in values] for _ in range(steps)]


def apply(optimizer, variables, all_gradients, dtype=tf.float32):
    for step in all_gradients:
        pairs = zip([tf.constant(g, dtype) for g in step], variables, strict=True)
        optimizer.apply_gradients(pairs)


def naive(values, all_gradients, rate, momentum, l2, eta, nesterov, decayed, adapted):
    """Returns the weights after all steps, element by element in float64."""
    results = []
    for index, name in enumerate(NAMES):
        shape = np.shape(values[index])
        weights = [float(w) for w in np.ravel(values[index])]
        velocity = [0.0] * len(weights)
        for step in all_gradients:
            d = [float(g) for g in np.ravel(step[index])]
            if name in decayed:
                d = [g + l2 * w for g, w in zip(d, weights, strict=True)]
            if name in adapted:
                weight_norm = sum(w * w for w in weights) ** 0.5
                norm = sum(g * g for g in d) ** 0.5
                d = [g * eta * weight_norm / norm for g in d]
            velocity = [momentum * v - rate * g for v, g in zip(velocity, d, strict=True)]
            for i, v in enumerate(velocity):
                weights[i] += momentum * v - rate * d[i] if nesterov else v
        results.append(np.reshape(weights, shape))
    return results


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    ("exclude", "decayed", "adapted"),
    [
        (None, {"kernel", "weight_step_size"}, {"kernel"}),
        ((), set(NAMES), set(NAMES) - {"weight_step_size"}),
        (("b*", "weight_step_size"), {"kernel", "gamma"}, {"kernel", "gamma"}),
    ],
)
def test_four_steps_equal_the_naive_ones(nesterov, exclude, decayed, adapted):
    variables, values = made("float64")
    steps = gradients(4)
    # Powers of two, so that Keras's float32 learning rate is exact.
    apply(LARS(0.5, 0.75, 0.25, exclude, 0.125, nesterov=nesterov), variables, steps, tf.float64)
    expected = naive(values, steps, 0.5, 0.75, 0.25, 0.125, nesterov, decayed, adapted)
    for name, variable, value in zip(NAMES, variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-12, err_msg=name)


def test_one_step_by_hand():
    kernel = keras.Variable([[3.0, 4.0]], name="kernel")
    # |w| = 5, d = g + 0.5 w = (6, 8), |d| = 10: ratio 0.5 * 5 / 10, step 0.5 * 0.25 * d.
    LARS(0.5, l2=0.5, trust_coefficient=0.5).apply_gradients([(tf.constant([[4.5, 6.0]]), kernel)])
    np.testing.assert_array_equal(kernel, [[2.25, 3.0]])


def test_trust_ratio_is_one_where_a_norm_is_zero():
    zero, some = tf.zeros((2, 2)), tf.ones((2, 2))
    for weights, gradient in [(zero, some), (some, zero), (zero, zero)]:
        assert float(trust_ratio(weights, gradient, 0.5)) == 1
    assert float(trust_ratio(some, 4 * some, 0.5)) == 0.125


def test_zero_weights_move_by_the_plain_gradient():
    kernel = keras.Variable([[0.0, 0.0]], name="kernel")
    LARS(0.5, l2=0.1).apply_gradients([(tf.constant([[2.0, -4.0]]), kernel)])
    np.testing.assert_array_equal(kernel, [[-1.0, 2.0]])


def test_zero_gradients_and_no_penalty_leave_weights_alone():
    kernel = keras.Variable([[3.0, 4.0]], name="kernel")
    LARS(0.5).apply_gradients([(tf.zeros((1, 2)), kernel)])
    np.testing.assert_array_equal(kernel, [[3.0, 4.0]])


def test_gradients_of_any_scale_make_the_same_step():
    moved = []
    for scale in (1.0, 1024.0, 2.0**-10):
        kernel = keras.Variable([[3.0, 4.0], [-1.0, 0.5]], name="kernel")
        step = tf.constant([[0.3, -0.2], [1.5, 0.7]])
        LARS(0.5, trust_coefficient=0.1).apply_gradients([(scale * step, kernel)])
        moved.append(np.array(kernel))
    np.testing.assert_array_equal(moved[1], moved[0])
    np.testing.assert_array_equal(moved[2], moved[0])


def test_larger_weights_move_by_the_same_share():
    step = tf.constant([[0.3, -0.2]])
    moved = []
    for scale in (1.0, 64.0):
        kernel = keras.Variable([[scale * 3.0, scale * 4.0]], name="kernel")
        LARS(0.5, trust_coefficient=0.1).apply_gradients([(step, kernel)])
        moved.append(np.array(kernel) / scale)
    np.testing.assert_array_equal(moved[1], moved[0])


def test_norms_of_half_precision_do_not_overflow():
    # The squares' sum, 4e6, is beyond float16.
    weights = tf.fill((4,), tf.constant(1000.0, tf.float16))
    ratio = trust_ratio(weights, tf.ones(4, tf.float16), 0.5)
    assert ratio.dtype == tf.float32
    assert float(ratio) == 500


def test_not_a_number_is_not_hidden():
    kernel = keras.Variable([[3.0, 4.0]], name="kernel")
    LARS(0.5).apply_gradients([(tf.constant([[np.nan, 1.0]]), kernel)])
    assert np.isnan(np.array(kernel)[0, 0])


def test_function_and_eager_step_agree():
    steps = gradients(3)
    eager, _ = made()
    traced, _ = made()
    apply(LARS(0.5, l2=0.1), eager, steps)
    optimizer = LARS(0.5, l2=0.1)
    optimizer.build(traced)
    step = tf.function(lambda *g: optimizer.apply_gradients(zip(g, traced, strict=True)))
    for one in steps:
        step(*[tf.constant(g, tf.float32) for g in one])
    for left, right in zip(eager, traced, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_batch_norm_and_biases_of_a_network_are_excluded():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    )
    optimizer = LARS(0.5, l2=0.1)
    optimizer.build(model.trainable_variables)
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias", "gamma", "beta"]
    assert optimizer.excluded == optimizer.unscaled == {1, 2, 3}


def test_restored_optimizer_goes_on_as_if_never_stopped(tmp_path):
    steps = gradients(4)
    whole, _ = made()
    apply(LARS(0.5, l2=0.1), whole, steps)
    first, _ = made()
    optimizer = LARS(0.5, l2=0.1)
    apply(optimizer, first, steps[:2])
    tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "two"))

    second, _ = made()
    for variable, value in zip(second, first, strict=True):
        variable.assign(value)
    restored = LARS(0.5, l2=0.1)
    restored.build(second)
    status = tf.train.Checkpoint(optimizer=restored).read(str(tmp_path / "two"))
    status.assert_existing_objects_matched()
    assert any(np.any(np.array(slot)) for slot in restored.momentums)
    apply(restored, second, steps[2:])
    assert int(restored.iterations) == 4
    for left, right in zip(whole, second, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("exclude", [None, (), ("bias", "*_norm")])
def test_configuration_comes_back(exclude):
    optimizer = LARS(0.25, 0.7, 0.01, exclude, 0.02, nesterov=True, clipnorm=3.0, name="mine")
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is LARS
    assert copy.get_config() == optimizer.get_config()
    assert (copy.momentum, copy.l2, copy.trust_coefficient, copy.nesterov, copy.clipnorm) == (
        0.7, 0.01, 0.02, True, 3.0)  # fmt: skip
    assert copy.exclude == exclude


def test_exclusion_without_a_match_is_refused_when_built():
    variables, _ = made()
    with pytest.raises(UserError, match="Exclusion 'batch_norm' matches no variable"):
        LARS(0.5, exclude=("bias", "batch_norm")).build(variables)


def test_decoupled_weight_decay_is_refused():
    with pytest.raises(UserError, match="allowed: l2"):
        LARS(0.5, weight_decay=1e-6)
