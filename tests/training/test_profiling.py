"""Some steps of a run under the profiler."""

import types

import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.settings.profiling import ProfiledSteps
from tfcq.training.profiling import Profile, check_made


def profiled(tmp_path, monkeypatch, calls, together=1):
    """Returns what steps 5 to 7 of 8 do to the profiler, from step 3 on, in calls of `fit`."""
    profiler, seen = tf.profiler.experimental, []

    class Trace:
        def __init__(self, name, step_num, _r):
            self.step = step_num

        def __enter__(self):
            seen.append(self.step)

        def __exit__(self, *error):
            seen.append(-self.step)

    monkeypatch.setattr(profiler, "start", lambda folder: seen.append(folder))
    monkeypatch.setattr(profiler, "stop", lambda: seen.append("stop"))
    monkeypatch.setattr(profiler, "Trace", Trace)
    callback = Profile(tmp_path, ProfiledSteps(5, 7), done=2, total=8)
    callback.set_model(types.SimpleNamespace(steps_per_execution=together))
    for count in calls:
        for batch in range(count):
            callback.on_train_batch_begin(batch)
            callback.on_train_batch_end(batch)
    return seen


def test_the_steps_asked_for_are_profiled_over_several_calls_of_fit(tmp_path, monkeypatch, capsys):
    seen = profiled(tmp_path, monkeypatch, (3, 3))
    assert seen == [str(tmp_path), 5, -5, 6, -6, 7, -7, "stop"]
    assert f"Profile of steps 5 to 7: tensorboard --logdir={tmp_path}" in capsys.readouterr().out


def test_whole_calls_of_several_steps_are_profiled(tmp_path, monkeypatch, capsys):
    # Steps 3 to 5 and 6 to 8.
    seen = profiled(tmp_path, monkeypatch, (2,), together=3)
    assert seen == [str(tmp_path), 3, -3, 6, -6, "stop"]
    assert "Profile of steps 3 to 8: " in capsys.readouterr().out


@pytest.mark.parametrize("steps", [(2, 4), (7, 9)])
def test_steps_that_are_not_made_are_refused(steps, tmp_path):
    with pytest.raises(UserError, match="of a run of 8 steps, of which 2 are done.*from 3 to 8"):
        Profile(tmp_path, ProfiledSteps(*steps), done=2, total=8)


def test_a_run_that_has_ended_makes_no_step_to_profile():
    check_made(None, 8, 8)
    with pytest.raises(UserError, match="of which 8 are done; allowed: none, leave it out"):
        check_made(ProfiledSteps(1, 2), 8, 8)
