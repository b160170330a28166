"""Which steps are profiled, and what of a training TensorBoard is given."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcq
from tfcq.errors import UserError
from tfcq.settings.profiling import ProfiledSteps
from tfcq.training.network_summaries import NetworkSummaries
from tfcq.training.profiling import Profile


def test_the_steps_asked_for_are_profiled_over_several_calls_of_fit(tmp_path, monkeypatch, capsys):
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
    callback = Profile(tmp_path, ProfiledSteps(4, 6), done=2, total=8)
    for steps in (3, 3):
        for batch in range(steps):
            callback.on_train_batch_begin(batch)
            callback.on_train_batch_end(batch)
    assert seen == [str(tmp_path), 4, -4, 5, -5, 6, -6, "stop"]
    assert f"Profile of steps 4 to 6: tensorboard --logdir={tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [(2, 4), (7, 9)])
def test_steps_that_are_not_made_are_refused(steps, tmp_path):
    with pytest.raises(UserError, match="of a run of 8 steps, of which 2 are done.*from 3 to 8"):
        Profile(tmp_path, ProfiledSteps(*steps), done=2, total=8)


def test_views_are_written_once_and_kernels_and_recorded_ranges_each_epoch(tmp_path):
    network = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="first"),
                                layers.ReLU(), layers.Conv2D(2, 1, name="second")])  # fmt: skip
    network = tfcq.quantizable(network, "uniform")
    callback = NetworkSummaries(tmp_path, network, lambda: np.zeros((6, 5, 3), np.uint8))
    callback.on_train_begin()
    callback.on_epoch_end(0)
    tfcq.calibrate(network, np.ones((2, 4, 4, 1), "float32"))
    callback.on_train_begin()
    callback.on_epoch_end(1)
    (file,) = tmp_path.iterdir()
    tags = [(event.step, value.tag) for event in tf.compat.v1.train.summary_iterator(str(file))
            for value in event.summary.value]  # fmt: skip
    assert tags[0] == (0, "views")
    kernels = [(step, tag.split("/")[-1]) for step, tag in tags if tag.startswith("kernels/")]
    assert kernels == [(0, "first"), (0, "second"), (1, "first"), (1, "second")]
    ranges = [(step, tag.split("/")[-1]) for step, tag in tags if tag.startswith("ranges/")]
    assert ranges and set(ranges) == {(1, "minimum"), (1, "maximum")}
    assert len(tags) == 1 + len(kernels) + len(ranges)
