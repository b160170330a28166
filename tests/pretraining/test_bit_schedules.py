"""Drawn bits are a pure function of (seed, step)."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.pretraining.bit_schedules import BitSchedule


def drawn(schedule, steps, count=1):
    @tf.function
    def run():
        every_step = tf.range(steps, dtype=tf.int64)
        draw = lambda step: schedule.draw(step, count)  # noqa: E731
        return tf.map_fn(draw, every_step, fn_output_signature=tf.int32)

    return run().numpy()


def test_list_goes_through_the_candidates_in_order_over_and_over():
    schedule = BitSchedule("2,8,4", "5-6", "list")
    assert drawn(schedule, 4)[:, 0].tolist() == [[2, 5], [8, 6], [4, 5], [2, 6]]
    assert drawn(schedule, 2, count=2).tolist() == [[[2, 5], [8, 6]], [[4, 5], [2, 6]]]


def test_uniform_draws_take_every_candidate_about_equally_often():
    steps = 1500
    bits = drawn(BitSchedule("2-8", "4,6,8"), steps)
    assert bits.dtype == np.int32
    for column, choices in ((0, range(2, 9)), (1, (4, 6, 8))):
        values, counts = np.unique(bits[:, 0, column], return_counts=True)
        assert values.tolist() == list(choices)
        share = 1 / len(choices)
        bound = 5 * np.sqrt(share * (1 - share) / steps)
        assert np.all(np.abs(counts / steps - share) < bound)


def test_draws_depend_on_seed_step_and_place_alone():
    one, same, other = (drawn(BitSchedule(seed=seed), 60, 2) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    assert np.any(one[:, 0] != one[:, 1])
    assert np.any(one[:30] != one[30:])


def test_weight_and_activation_bits_are_drawn_independently():
    bits = drawn(BitSchedule("2-8", "2-8"), 200)[:, 0]
    assert abs(np.corrcoef(bits[:, 0], bits[:, 1])[0, 1]) < 5 / np.sqrt(200)


def test_single_candidate_is_fixed():
    assert np.unique(drawn(BitSchedule("4", "8"), 5).reshape(-1, 2), axis=0).tolist() == [[4, 8]]


def test_same_draw_in_a_graph():
    schedule = BitSchedule()
    traced = tf.function(lambda step: schedule.draw(step, 2))
    for step in (0, 7, 2**40):
        step = tf.constant(step, tf.int64)
        np.testing.assert_array_equal(traced(step), schedule.draw(step, 2))


def test_seed_may_be_any_int64():
    assert drawn(BitSchedule(seed=2**40), 2).shape == (2, 1, 2)


def test_bad_arguments_name_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'uniform'"):
        BitSchedule(kind="unifrom")
    with pytest.raises(UserError, match="The nearest is 2"):
        BitSchedule("1-4")
