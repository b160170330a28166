"""A run that was cut off and restored is the run that was not."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.data.augmentation import augmentation_for
from tfcq.data.digits import DigitsSource
from tfcq.data.pipeline import view_batches
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.optimizers import SGD
from tfcq.training.schedules import learning_rate_schedule

# One step an epoch; each epoch leaves other images out.
EPOCHS, IMAGES, BATCH = 4, 24, 16
STEPS = IMAGES // BATCH


@pytest.fixture(scope="module")
def digits():
    return DigitsSource().split("train").first(IMAGES)


def start(folder, split, until, initial_seed):
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
    model = Pretrainer(backbone, projection_width=8, predictor_width=4, seed=1)
    model.compile(
        SGD(learning_rate_schedule("cosine", 0.1, EPOCHS * STEPS, 2), l2=1e-3), run_eagerly=True
    )
    checkpoints = RunCheckpoints(folder, model)
    done = checkpoints.restore()
    views = view_batches(split, augmentation_for(8, 1), 8, BATCH, seed=1, first_epoch=done)
    model.fit(
        views, epochs=until, initial_epoch=done, steps_per_epoch=STEPS, shuffle=False, verbose=0,
        callbacks=[checkpoints],
    )  # fmt: skip
    return model, done


def state(model):
    network = {variable.path: np.array(variable) for variable in model.variables}
    # The first part of an optimizer's paths counts the optimizers of the process.
    kept = {v.path.partition("/")[2]: np.array(v) for v in model.optimizer.variables}
    assert len(kept) == len(model.optimizer.variables)
    return network | kept


def test_two_and_two_epochs_equal_four_to_the_last_bit(tmp_path, digits):
    whole, none = start(tmp_path / "whole", digits, EPOCHS, initial_seed=0)
    start(tmp_path / "parts", digits, 2, initial_seed=0)
    parts, done = start(tmp_path / "parts", digits, EPOCHS, initial_seed=9)
    assert (none, done) == (0, 2)
    expected, received = state(whole), state(parts)
    assert expected.keys() == received.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(received[path], value, err_msg=path)
    for part in ("bits", "step", "minimum", "maximum", "moving_mean", "momentum", "iteration"):
        assert any(part in path for path in expected), part
    assert int(parts.step.value) == int(parts.optimizer.iterations.value) == EPOCHS * STEPS


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
