"""A run that was cut off and restored is the run that was not."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.data.augmentation import augmentation_for
from tfcq.data.digits import DigitsSource
from tfcq.data.pipeline import view_batches
from tfcq.errors import UserError
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.policies import PAPER
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.optimizers import SGD
from tfcq.training.schedules import learning_rate_schedule

# One step an epoch; each epoch leaves other images out.
EPOCHS, IMAGES, BATCH = 2, 24, 16
STEPS = IMAGES // BATCH
LSQ = PAPER.with_quantizers("lsq", "lsq")


@pytest.fixture(scope="module")
def digits():
    return DigitsSource().split("train").first(IMAGES)


def start(folder, split, until, initial_seed, **method):
    """Trains up to an epoch in a new process's stead; returns the model."""
    # The seed of initialization differs between starts: everything must come from the checkpoint.
    keras.utils.set_random_seed(initial_seed)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(6, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="tiny",
    )
    method = method or {"predictor_width": 4}
    model = Pretrainer(backbone, projection_width=8, seed=1, **method)
    model.compile(
        SGD(learning_rate_schedule("cosine", 0.1, EPOCHS * STEPS, 1), l2=1e-3), run_eagerly=True
    )
    model.set_run_length(STEPS, EPOCHS * STEPS)
    checkpoints = RunCheckpoints(folder, model)
    done = checkpoints.restore()
    views = view_batches(split, augmentation_for(8, 1), 8, BATCH, seed=1, first_epoch=done)
    model.fit(
        views, epochs=until, initial_epoch=done, steps_per_epoch=STEPS, shuffle=False, verbose=0,
        callbacks=[checkpoints],
    )  # fmt: skip
    return model, done


def state(model):
    # A momentum network's paths are the online one's; the first part of a path may count the
    # frameworks, or the optimizers, of the process.
    paths = [re.sub(r"^(\w*?)(_[0-9]+)?/", "", variable.path) for variable in model.variables]
    network = {
        f"{number} {path}": np.array(variable)
        for number, (path, variable) in enumerate(zip(paths, model.variables, strict=True))
    }
    kept = {v.path.partition("/")[2]: np.array(v) for v in model.optimizer.variables}
    assert len(kept) == len(model.optimizer.variables)
    return network | kept


# What must come back beside the network, by framework and quantizers.
METHODS = {
    "simsiam": ({}, ()),
    "byol": ({"framework": "byol", "predictor_width": 4}, ()),
    "mocov2": (
        {"framework": "mocov2", "queue_size": 64, "policy": LSQ},
        ("queue", "oldest", "step_size"),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_one_and_one_epoch_equal_two_to_the_last_bit(tmp_path, digits, method):
    options, further = METHODS[method]
    whole, none = start(tmp_path / "whole", digits, EPOCHS, initial_seed=0, **options)
    start(tmp_path / "parts", digits, 1, initial_seed=0, **options)
    parts, done = start(tmp_path / "parts", digits, EPOCHS, initial_seed=9, **options)
    assert (none, done) == (0, 1)
    expected, received = state(whole), state(parts)
    assert expected.keys() == received.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(received[path], value, err_msg=path)
    usual = ("bits", "step", "minimum", "maximum", "moving_mean", "momentum", "iteration")
    for part in (*usual, *further):
        assert any(part in path for path in expected), part
    assert int(parts.step.value) == int(parts.optimizer.iterations.value) == EPOCHS * STEPS


def test_damaged_checkpoint_is_told_in_one_line(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, without_images())
    checkpoints.on_epoch_end(0)
    (data,) = tmp_path.glob("ckpt-1.data-*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="ckpt-1 cannot be restored: .*Remove its files"):
        RunCheckpoints(tmp_path, without_images()).restore()


def without_images():
    model = Pretrainer(
        keras.Sequential([keras.Input((4,)), layers.Dense(2)]),
        projection_width=2,
        predictor_width=2,
    )
    model.compile()
    return model


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, without_images())
    for epoch in range(3):
        checkpoints.on_epoch_end(epoch)
    kept = sorted(path.name for path in tmp_path.glob("*.index"))
    assert kept == ["ckpt-2.index", "ckpt-3.index"]
    assert RunCheckpoints(tmp_path, without_images()).restore() == 3


def test_fresh_folder_restores_nothing(tmp_path):
    assert RunCheckpoints(tmp_path, without_images()).restore() == 0
