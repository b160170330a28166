"""What is left of a run, in calls of `fit`."""

import pytest

from tfcq.training.stretches import stretches


@pytest.mark.parametrize(("steps", "total"), [(1, 3), (4, 10), (4, 12), (5, 3), (7, 1)])
def test_every_step_that_is_left_is_made_once_and_in_order(steps, total):
    for done in range(total + 1):
        made = [
            (epoch, step)
            for part in stretches(done, steps, total)
            for epoch in range(part.first, part.last)
            for step in range(part.first_step, part.first_step + part.steps)
        ]
        assert made == [divmod(step, steps) for step in range(done, total)]
        assert len(stretches(done, steps, total)) <= 3
