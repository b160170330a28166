"""Drawn bits are a pure function of (seed, step)."""

import functools

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
    assert drawn(schedule, 2, count=2).tolist() == [[[2, 5], [8, 6]], [[8, 6], [4, 5]]]


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


def test_precision_set_draws_the_same_bits_for_weights_and_activations():
    bits = drawn(BitSchedule(precision_set="6-16"), 200, 2)
    np.testing.assert_array_equal(bits[..., 0], bits[..., 1])
    assert set(bits.flat) == set(range(6, 17))
    assert np.any(bits[:, 0] != bits[:, 1])


def test_epoch_schedule_keeps_its_draw_for_a_period():
    schedule = BitSchedule("2-8", "4-8", "epoch", seed=4)
    bits = [schedule.draw(tf.constant(step, tf.int64), 2, period=5).numpy() for step in range(60)]
    epochs = np.reshape(bits, [12, 5, 4])
    np.testing.assert_array_equal(epochs, np.repeat(epochs[:, :1], 5, axis=1))
    assert len({tuple(epoch[0]) for epoch in epochs}) > 6


def test_cyclic_schedule_rises_along_a_half_cosine_within_each_period():
    schedule = BitSchedule("2-8", "4", "cyclic")
    weights = [int(schedule.draw(step, 1, period=8)[0, 0]) for step in range(16)]
    risen = [(1 - np.cos(np.pi * place / 8)) / 2 for place in range(8)]
    assert weights == [2 + round(6 * share) for share in risen] * 2
    two = schedule.draw(0, 2, period=8)[:, 0].numpy()
    assert two.tolist() == [weights[0], weights[4]]


def test_fixed_schedule_has_one_candidate():
    assert drawn(BitSchedule("3", "5", "fixed"), 2).reshape(-1, 2).tolist() == [[3, 5], [3, 5]]
    with pytest.raises(UserError, match="received candidates 2, 3, .* such as 2"):
        BitSchedule("2-8", "4", "fixed")


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


def test_noise_and_shuffling_have_seeds_of_their_own_at_every_step():
    seeds = [
        tuple(of(tf.constant(step, tf.int64)).numpy().tolist())
        for schedule in (BitSchedule(), BitSchedule(seed=1))
        for of in (
            schedule.rounding_seed,
            functools.partial(schedule.rounding_seed, targets=True),
            schedule.shuffling_seed,
        )
        for step in range(10)
    ]
    assert len(set(seeds)) == 2 * 3 * 10


def test_bad_arguments_name_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'uniform'"):
        BitSchedule(kind="unifrom")
    with pytest.raises(UserError, match="The nearest is 2"):
        BitSchedule("1-4")
