"""Strategies by name, and what a batch must be for them."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.training.distribution import check_batch_size, strategy_named, synchronize


def test_single_is_the_default_strategy_and_mirrored_another(capsys):
    assert strategy_named("single") is tf.distribute.get_strategy()
    assert strategy_named("single").num_replicas_in_sync == 1
    mirrored = strategy_named("mirrored")
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    told = (
        capsys.readouterr().out
        == "--strategy=mirrored has one device here, and trains on it alone.\n"
    )
    assert told == (mirrored.num_replicas_in_sync == 1)


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'mirrored'"):
        strategy_named("mirored")


@pytest.mark.parametrize(("size", "replicas"), [(64, 1), (64, 4), (4, 2), (2, 1)])
def test_batch_that_splits_evenly_is_taken(size, replicas):
    check_batch_size(size, replicas)


@pytest.mark.parametrize(
    ("size", "replicas", "nearest"), [(30, 4, 32), (63, 8, 64), (4, 4, 8), (2, 2, 4)]
)
def test_batch_that_does_not_split_names_the_nearest(size, replicas, nearest):
    with pytest.raises(UserError, match=f"The nearest is {nearest}\\."):
        check_batch_size(size, replicas)


def test_batch_norms_and_ranges_are_synchronized_in_nested_models_too():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(), ActivationQuantizer()]
    )
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(), inner])
    assert not any(layer.synchronized for layer in [model.layers[0], *inner.layers])
    synchronize(model)
    assert all(layer.synchronized for layer in [model.layers[0], *inner.layers])
    assert ActivationQuantizer.from_config(inner.layers[1].get_config()).synchronized
