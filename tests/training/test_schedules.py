"""Learning rates at each boundary, against hand computation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.settings.training import scaled_learning_rate
from tfcq.training.schedules import StepDecay, learning_rate_schedule


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_cosine_goes_from_the_rate_to_zero():
    schedule = learning_rate_schedule("cosine", 0.4, 100)
    np.testing.assert_allclose(rates(schedule, (0, 25, 50, 100, 120)), [
        0.4, 0.2 * (1 + np.sqrt(0.5)), 0.2, 0, 0], atol=1e-7)  # fmt: skip
    assert schedule(99) > 0


def test_warm_up_is_linear_and_the_cosine_takes_the_rest():
    schedule = learning_rate_schedule("cosine", 0.4, 100, warmup_steps=20)
    after = 0.2 * (1 + np.cos(np.pi / 80))
    np.testing.assert_allclose(
        rates(schedule, (0, 5, 10, 19, 20, 21, 60, 100)),
        [0, 0.1, 0.2, 0.38, 0.4, after, 0.2, 0],
        atol=1e-7,
    )


def test_constant_rate_with_and_without_warm_up():
    assert learning_rate_schedule("constant", 0.4, 100) == 0.4
    schedule = learning_rate_schedule("constant", 0.4, 100, warmup_steps=20)
    np.testing.assert_allclose(
        rates(schedule, (0, 10, 19, 20, 60, 100)), [0, 0.2, 0.38, 0.4, 0.4, 0.4], atol=1e-7
    )


def test_whole_rate_is_a_float_that_keras_takes():
    assert isinstance(learning_rate_schedule("constant", 1, 100), float)


def test_steps_lower_the_rate_at_each_milestone():
    # SSQL's linear evaluation: 100 epochs from 30.0, divided by 10 at the 60th and the 80th.
    schedule = learning_rate_schedule("step", 30.0, 100, milestones=(60, 80))
    np.testing.assert_allclose(
        rates(schedule, (0, 59, 60, 61, 79, 80, 99)), [30, 30, 3, 3, 3, 0.3, 0.3], rtol=1e-6
    )


def test_steps_with_warm_up_and_another_factor():
    schedule = learning_rate_schedule(
        "step", 0.8, 50, warmup_steps=8, milestones=[9, 40], factor=0.5
    )
    np.testing.assert_allclose(
        rates(schedule, (0, 2, 7, 8, 9, 39, 40)), [0, 0.2, 0.7, 0.8, 0.4, 0.4, 0.2], rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_warm_up_over_the_whole_run_ends_at_the_rate(kind):
    schedule = learning_rate_schedule(kind, 0.4, 10, warmup_steps=10)
    np.testing.assert_allclose(rates(schedule, (0, 5, 9, 10)), [0, 0.2, 0.36, 0.4], atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("cosine", {}), ("constant", {}), ("step", {"milestones": (5, 7), "factor": 0.3})],
)
def test_configuration_comes_back(kind, settings):
    schedule = learning_rate_schedule(kind, 0.4, 10, warmup_steps=4, **settings)
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(copy) is type(schedule)
    assert copy.get_config() == schedule.get_config()
    assert rates(copy, range(11)) == rates(schedule, range(11))


def test_optimizer_follows_the_steps_inside_a_function():
    optimizer = keras.optimizers.SGD(StepDecay(1.0, [2], 0.25))
    variable = keras.Variable(0.0)

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.constant(-1.0), variable)])

    seen = []
    for _ in range(4):
        step()
        seen.append(float(variable))
    assert seen == [1, 2, 2.25, 2.5]


def test_linear_scaling_rule():
    assert scaled_learning_rate(0.1, 256) == 0.1
    assert scaled_learning_rate(0.1, 8192) == 3.2
    assert scaled_learning_rate(0.3, 64) == 0.075


def error_of(*args, **kwargs):
    with pytest.raises(UserError) as error:
        learning_rate_schedule(*args, **kwargs)
    return str(error.value)


def test_unknown_course_names_the_nearest():
    assert error_of("cosin", 0.4, 10) == (
        "Unknown learning rate schedule 'cosin'; allowed: constant, cosine, step. "
        "Did you mean 'cosine'?"
    )


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_milestones_that_are_not_used_are_refused(kind):
    assert error_of(kind, 0.4, 10, milestones=(3, 5)) == (
        f"Learning rate schedule {kind!r} has no milestones, but received 3, 5; leave them out, "
        "or use 'step'."
    )


def test_steps_need_milestones():
    assert "needs milestones" in error_of("step", 0.4, 10)


@pytest.mark.parametrize("milestones", [(0,), (2,), (5, 10), (5, 100)])
def test_milestone_without_effect_names_the_range(milestones):
    assert "allowed: 3 to 9" in error_of("step", 0.4, 10, warmup_steps=2, milestones=milestones)


@pytest.mark.parametrize("milestones", [(7, 5), (5, 5, 7)])
def test_milestones_out_of_order_name_the_order(milestones):
    assert "Did you mean 5, 7?" in error_of("step", 0.4, 10, milestones=milestones)


@pytest.mark.parametrize("factor", [0, 1, 10, -0.1])
def test_factor_that_lowers_nothing_is_refused(factor):
    assert f"Factor {factor}" in error_of("step", 0.4, 10, milestones=(5,), factor=factor)


@pytest.mark.parametrize("warmup_steps", [-1, 11])
def test_warm_up_outside_the_run_is_refused(warmup_steps):
    assert "allowed: 0 to 10" in error_of("cosine", 0.4, 10, warmup_steps=warmup_steps)
