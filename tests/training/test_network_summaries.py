"""What TensorBoard shows of a network."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfcq
from tfcq.training import network_summaries
from tfcq.training.network_summaries import NetworkSummaries


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


def test_some_values_of_a_large_kernel_are_of_all_its_channels(monkeypatch):
    monkeypatch.setattr(network_summaries, "_VALUES", 16)
    channels = np.tile(np.arange(8, dtype="float32"), (32, 1))
    assert set(network_summaries._some_of(keras.Variable(channels)).numpy()) == set(range(8))
    small = keras.Variable(np.arange(9, dtype="float32").reshape(3, 3))
    assert network_summaries._some_of(small).numpy().tolist() == list(range(9))
