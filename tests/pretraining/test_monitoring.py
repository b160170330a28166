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


def watching():
    """Returns what stops a failing run, on a model that has just started."""
    watch = StopOnFailure()
    watch.set_model(types.SimpleNamespace(first_feature_ratio=tf.Variable(0.0)))
    return watch


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_stops(loss):
    with pytest.raises(TrainingStopped, match=f"loss became {loss} at step 3"):
        watching().on_train_batch_end(2, {"loss": loss})


def test_collapse_stops_at_the_threshold():
    watch = watching()
    watch.on_train_batch_end(0, {"loss": -0.5})
    watch.on_epoch_end(0, {"feature_std_ratio": COLLAPSED_BELOW})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 2"):
        watch.on_epoch_end(1, {"feature_std_ratio": COLLAPSED_BELOW - 1e-6})


def test_features_that_start_close_together_and_spread_are_no_collapse():
    watch = watching()
    watch.on_train_batch_end(0, {"loss": 5.0, "feature_std_ratio": 0.02})
    watch.on_epoch_end(0, {"feature_std_ratio": 0.03})
    # A training that goes on is judged by where it started, not by where it goes on.
    resumed = StopOnFailure()
    resumed.set_model(watch.model)
    resumed.on_train_batch_end(0, {"loss": 5.0, "feature_std_ratio": 0.03})
    resumed.on_epoch_end(1, {"feature_std_ratio": 0.025})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 3"):
        resumed.on_epoch_end(2, {"feature_std_ratio": 0.019})
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 1"):
        watching().on_epoch_end(0, {"feature_std_ratio": EMPTY_BELOW - 1e-6})


def test_throughput_leaves_out_the_first_step_of_an_epoch(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    callback, model = Throughput(), types.SimpleNamespace(images_seen=500)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    for step, images in enumerate((32, 32, 20)):
        model.images_seen += images
        callback.on_train_batch_end(step)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {"images_per_second": (32 + 20) / 4}


def test_throughput_of_a_single_step_is_unknown():
    callback = Throughput()
    callback.set_model(types.SimpleNamespace(images_seen=32))
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {}
