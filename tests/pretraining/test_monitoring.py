"""What watches a run."""

import math
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import TrainingStopped
from tfcq.pretraining.figures import feature_std_ratio
from tfcq.pretraining.monitoring import (
    COLLAPSED_BELOW,
    EMPTY_BELOW,
    StopOnFailure,
    Throughput,
)


def ratio(rows):
    return float(feature_std_ratio(tf.constant(rows, tf.float64)))


def test_spread_of_known_features():
    assert ratio([[1, 0], [-2, 0], [0, 3], [0, -4]]) == pytest.approx(1, abs=1e-12)
    assert ratio([[1, 0], [0, 1]]) == pytest.approx(math.sqrt(2) / 2, abs=1e-12)
    assert ratio([[1, 0, 0], [-1, 0, 0]]) == pytest.approx(math.sqrt(3) / 3, abs=1e-12)


def test_collapsed_features_have_no_spread_whatever_their_length():
    assert ratio([[1, 2], [2, 4], [10, 20]]) == pytest.approx(0, abs=1e-12)


def test_features_all_over_the_sphere_are_near_one():
    rows = np.random.default_rng(0).normal(size=(4000, 8))
    assert ratio(rows) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_stops(loss):
    with pytest.raises(TrainingStopped, match=f"loss became {loss} at step 3"):
        StopOnFailure().on_train_batch_end(2, {"loss": loss})


def test_collapse_stops_at_the_threshold():
    watch = StopOnFailure()
    watch.on_train_batch_end(0, {"loss": -0.5})
    watch.on_epoch_end(0, {"feature_std_ratio": COLLAPSED_BELOW})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 2"):
        watch.on_epoch_end(1, {"feature_std_ratio": COLLAPSED_BELOW - 1e-6})


def test_features_that_start_close_together_and_spread_are_no_collapse():
    watch = StopOnFailure()
    watch.on_train_begin()
    watch.on_train_batch_end(0, {"loss": 5.0, "feature_std_ratio": 0.02})
    watch.on_epoch_end(0, {"feature_std_ratio": 0.03})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 2"):
        watch.on_epoch_end(1, {"feature_std_ratio": 0.019})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 1"):
        StopOnFailure().on_epoch_end(0, {"feature_std_ratio": EMPTY_BELOW - 1e-6})


def test_throughput_leaves_out_the_first_step_of_an_epoch(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    callback = Throughput()
    callback.set_model(types.SimpleNamespace(images_per_step=32))
    callback.on_epoch_begin(0)
    for step in range(3):
        callback.on_train_batch_end(step)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {"images_per_second": 2 * 32 / 4}


def test_throughput_of_a_single_step_is_unknown():
    callback = Throughput()
    callback.set_model(types.SimpleNamespace(images_per_step=32))
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {}
