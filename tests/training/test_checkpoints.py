"""A run that was cut off and restored is the run that was not."""

import os
import pathlib
import re
import shutil
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.command_line import interruption
from tfcq.data.augmentation import augmentation_for
from tfcq.data.digits import DigitsSource
from tfcq.data.views import view_batches
from tfcq.errors import UserError
from tfcq.parsing import read_rows
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.policies import PAPER
from tfcq.settings.run_position import RunPosition, kept_positions
from tfcq.settings.saving import parse_save_every
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.history import HistoryFile
from tfcq.training.optimizers import SGD
from tfcq.training.schedules import learning_rate_schedule
from tfcq.training.stretches import stretches

# One step an epoch; each epoch leaves other images out.
EPOCHS, IMAGES, BATCH = 2, 24, 16
STEPS = IMAGES // BATCH
LSQ = PAPER.with_quantizers("lsq", "lsq")


@pytest.fixture(autouse=True)
def no_watch():
    """Keeps the thread that a command left behind from ending the tests at a signal."""
    before = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(before, warn_on_full_buffer=False)


@pytest.fixture(scope="module")
def digits():
    return DigitsSource().split("train").first(IMAGES)


def start(folder, split, until, initial_seed, steps=STEPS, further=(), **method):
    """Trains up to a step in a new process's stead; returns the model, and what was done before."""
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
        SGD(learning_rate_schedule("cosine", 0.1, EPOCHS * steps, 1), l2=1e-3), run_eagerly=True
    )
    model.set_run_length(steps, EPOCHS * steps)
    checkpoints = RunCheckpoints(folder / "checkpoints", model, steps, until)
    done = checkpoints.restore_newest()
    history = HistoryFile(folder / "history.csv", checkpoints.position.epochs)
    with checkpoints.saving_at_signals():
        for part in stretches(done, steps, until):
            views = view_batches(
                split, augmentation_for(8, 1), 8, BATCH, seed=1, first_epoch=part.first,
                first_step=part.first_step,
            )  # fmt: skip
            model.fit(
                views, epochs=part.last, initial_epoch=part.first, steps_per_epoch=part.steps,
                shuffle=False, verbose=0, callbacks=[history, *further, checkpoints],
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
    "byol": ({"framework": "byol", "predictor_width": 4}, ()),
    "mocov2": (
        {"framework": "mocov2", "queue_size": 64, "policy": LSQ},
        ("queue", "oldest", "step_size"),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_one_and_one_epoch_equal_two_to_the_last_bit(tmp_path, digits, method):
    options, further = METHODS[method]
    end = EPOCHS * STEPS
    whole, none = start(tmp_path / "whole", digits, end, initial_seed=0, **options)
    start(tmp_path / "parts", digits, STEPS, initial_seed=0, **options)
    parts, done = start(tmp_path / "parts", digits, end, initial_seed=9, **options)
    assert (none, done) == (0, 1)
    expected, received = state(whole), state(parts)
    assert expected.keys() == received.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(received[path], value, err_msg=path)
    usual = ("bits", "step", "minimum", "maximum", "moving_mean", "momentum", "iteration")
    for part in (*usual, *further):
        assert any(part in path for path in expected), part
    assert int(parts.step.value) == int(parts.optimizer.iterations.value) == EPOCHS * STEPS


def test_a_signal_to_another_worker_ends_this_one_at_the_same_step(tmp_path, digits, monkeypatch):
    def told(strategy, *own):
        return np.array([own, [0, signal.SIGTERM if count.done == 2 else 0]])

    class Count(keras.callbacks.Callback):
        done = 0

        def on_train_batch_end(self, batch, logs=None):
            self.done += 1

    count = Count()
    monkeypatch.setattr("tfcq.training.checkpoints.of_every_worker", told)
    with pytest.raises(interruption.Terminated) as ended:
        start(tmp_path, digits, 4, initial_seed=0, steps=4, further=[count])
    assert ended.value.number == signal.SIGTERM and "ckpt-0+2;" in ended.value.told
    assert kept_positions(tmp_path / "checkpoints")[-1] == RunPosition(0, 2)


def test_a_signal_to_one_of_several_workers_waits_for_the_step_of_all(
    tmp_path, digits, monkeypatch
):
    class SignalBeforeTheFirstStep(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tfcq.training.checkpoints.are_several", lambda strategy: True)
    with pytest.raises(interruption.Terminated, match="ckpt-0\\+1"):
        start(tmp_path, digits, 4, 0, steps=4, further=[SignalBeforeTheFirstStep()])


def test_workers_but_the_chief_write_nothing_and_begin_where_it_does(tmp_path, digits, monkeypatch):
    start(tmp_path, digits, 2, initial_seed=0)
    folder = tmp_path / "checkpoints"
    (folder / ".left").mkdir()
    (folder / "ckpt-2.index").write_bytes(b"")
    files = sorted(folder.iterdir())
    monkeypatch.setattr("tfcq.training.checkpoints.is_chief", lambda strategy: False)
    monkeypatch.setattr("tfcq.training.workers.is_chief", lambda strategy: False)
    _, done = start(tmp_path, digits, 2, initial_seed=0)
    assert done == 1
    assert sorted(folder.iterdir()) == files


def test_workers_that_see_other_checkpoints_are_refused(tmp_path, digits, monkeypatch):
    told = []

    def with_a_worker_before_the_first_step(strategy, number):
        told.append(number)
        return np.array([[told[0]], [number]])

    with monkeypatch.context() as patch:
        patch.setattr("tfcq.training.workers.of_every_worker", with_a_worker_before_the_first_step)
        start(tmp_path, digits, 0, initial_seed=0)
    start(tmp_path, digits, 1, initial_seed=0)
    monkeypatch.setattr(
        "tfcq.training.workers.of_every_worker", with_a_worker_before_the_first_step
    )
    with pytest.raises(UserError, match="unlike checkpoints"):
        start(tmp_path, digits, 1, initial_seed=0)


@pytest.mark.parametrize("several", [True, False])
def test_lost_worker_is_no_damaged_checkpoint(tmp_path, digits, monkeypatch, several):
    start(tmp_path, digits, 1, initial_seed=0)
    monkeypatch.setattr("tfcq.training.checkpoints.is_loss", lambda strategy, error: several)

    def lost(path):
        raise tf.errors.InternalError(None, None, "/job:worker/task:1 is gone")

    monkeypatch.setattr(tf.train, "load_checkpoint", lost)
    with pytest.raises(tf.errors.InternalError if several else UserError, match="task:1 is gone"):
        start(tmp_path, digits, 1, initial_seed=0)


def test_signal_within_an_epoch_saves_and_the_end_is_that_of_an_uninterrupted_run(
    tmp_path,
):
    # Two epochs of three steps; the signal comes in the second step of the second.
    split = DigitsSource().split("train").first(3 * BATCH)
    whole, _ = start(tmp_path / "whole", split, 6, initial_seed=0, steps=3)
    done = []

    def send(batch, logs):
        done.append(batch)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    sending = keras.callbacks.LambdaCallback(on_train_batch_end=send)
    folder, handler = tmp_path / "parts", signal.getsignal(signal.SIGTERM)
    with pytest.raises(interruption.Terminated, match=r"step 5 as .*ckpt-1\+2; the same"):
        start(folder, split, 6, initial_seed=0, steps=3, further=[sending])
    assert signal.getsignal(signal.SIGTERM) is handler
    parts, before = start(folder, split, 6, initial_seed=9, steps=3)
    assert before == 5
    expected, received = state(whole), state(parts)
    for path, value in expected.items():
        np.testing.assert_array_equal(received[path], value, err_msg=path)
    # Means are those of the whole epoch; only how fast it was is another matter.
    rows = [read_rows(tmp_path / name / "history.csv") for name in ("whole", "parts")]
    for one, other in zip(*rows, strict=True):
        assert {**one, "images_per_second": 0} == {**other, "images_per_second": 0}


def test_signal_with_nothing_to_save_ends_at_once(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, without_images(), 4)
    ended = pytest.raises(interruption.Terminated, match="files written so far are whole")
    with ended, checkpoints.saving_at_signals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert kept_positions(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [("1epochs", "0 1 2 3"), ("2epochs", "0 2 3"), ("3steps", "0 0+3 1+2 2+1 3"),
     ("1min", "0 0+3 1+2 2+1 3")],
)  # fmt: skip
def test_run_is_saved_as_often_as_asked_for_and_at_its_end(tmp_path, monkeypatch, text, kept):
    # A step takes 25 seconds.
    checkpoints = RunCheckpoints(tmp_path, without_images(), 4, 10, parse_save_every(text), keep=9)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    checkpoints.on_train_begin()
    for part in stretches(0, 4, 10):
        for epoch in range(part.first, part.last):
            for step in range(part.steps):
                clock[0] += 25
                checkpoints.on_train_batch_end(step)
            checkpoints.on_epoch_end(epoch)
    assert " ".join(map(str, kept_positions(tmp_path))) == kept


@pytest.mark.parametrize(
    ("keep", "kept"),
    [(3, ["0 1 1+1", "1 1+1 2", "1 2 3"]), (2, ["1 1+1", "1+1 2", "2 3"]), (1, ["1+1", "2", "3"])],
)
def test_what_a_signal_saved_takes_no_place_of_what_was_asked_for(tmp_path, keep, kept):
    checkpoints = RunCheckpoints(tmp_path, without_images(), 4, 16, keep=keep)
    found = lambda: " ".join(map(str, kept_positions(tmp_path)))  # noqa: E731
    checkpoints.on_train_begin()
    checkpoints.on_epoch_end(0)
    checkpoints.signals = [signal.SIGTERM]
    with pytest.raises(interruption.Terminated):
        checkpoints.on_train_batch_end(0)
    steps = [found()]
    checkpoints.signals = []
    for epoch in (1, 2):
        checkpoints.on_epoch_end(epoch)
        steps.append(found())
    assert steps == kept


DAMAGES = {
    "data cut": ("ckpt-3.data-00000-of-00001", lambda content: content[:100]),
    "data flipped": ("ckpt-3.data-00000-of-00001", lambda content: content[:90] + b"\xa5" * 9),
    "data lost": ("ckpt-3.data-00000-of-00001", None),
    "index cut": ("ckpt-3.index", lambda content: content[:100]),
    "index empty": ("ckpt-3.index", lambda content: b""),
    "index lost": ("ckpt-3.index", None),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints after two and three epochs of four steps, in a path that is also a pattern."""
    folder = tmp_path_factory.mktemp("run") / "a [b] c*?"
    model = without_images()
    checkpoints = RunCheckpoints(folder, model, 4)
    for epoch in range(3):
        kernel(model).assign(np.full(kernel(model).shape, epoch + 1.0))
        checkpoints.on_epoch_end(epoch)
    return folder


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, saved, name, damage, capsys):
    folder = shutil.copytree(saved, tmp_path / saved.name)
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    model = without_images()
    assert RunCheckpoints(folder, model, 4).restore_newest() == 8
    np.testing.assert_array_equal(kernel(model), np.full(kernel(model).shape, 2.0))
    told = capsys.readouterr().out
    assert re.search(r"ckpt-3 cannot be restored: .*from ckpt-2: 4 steps are made again\.\n$", told)
    assert told.count("\n") == 1
    assert kept_positions(folder) == [RunPosition(2)]
    damaged = {file.name for file in folder.iterdir() if "ckpt-3" in file.name}
    assert damaged and all(name.startswith("damaged-ckpt-3.") for name in damaged)


def test_nothing_to_go_on_from_is_refused_where_there_was_something(tmp_path, saved):
    folder = shutil.copytree(saved, tmp_path / saved.name)
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="ckpt-3 .* restored: .*ckpt-2 .*: .* No other is left"):
        RunCheckpoints(folder, without_images(), 4).restore_newest()
    assert kept_positions(folder) == [RunPosition(2), RunPosition(3)]
    history = tmp_path / "history.csv"
    fresh = RunCheckpoints(tmp_path / "none", without_images(), 4)
    assert fresh.restore_newest([history]) == 0
    history.write_text("epoch\n1\n")
    with pytest.raises(UserError, match=r"history\.csv is there, but no checkpoint in .*none;"):
        fresh.restore_newest([history])


def test_checkpoints_of_another_model_stay_as_they_are(saved):
    other = Pretrainer(
        keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.BatchNormalization()]),
        projection_width=2,
        predictor_width=2,
    )
    other.compile()
    before = sorted(saved.iterdir())
    with pytest.raises(UserError, match="ckpt-2 cannot be restored"):
        RunCheckpoints(saved, other, 4).restore_newest()
    assert sorted(saved.iterdir()) == before


@pytest.mark.parametrize("fault", ["No space left on device", "File too large"])
def test_a_disk_that_takes_no_checkpoint_is_told_and_earlier_ones_stay(tmp_path, saved, fault):
    folder = shutil.copytree(saved, tmp_path / saved.name)
    checkpoints, before = RunCheckpoints(folder, without_images(), 4), sorted(folder.iterdir())

    def full(path):
        pathlib.Path(f"{path}.index").write_bytes(b"half")
        told = f"{{{{function_node}}}} {path}; {fault} [Op:SaveV2]"
        raise tf.errors.ResourceExhaustedError(None, None, told)

    checkpoints.checkpoint.write = full
    with pytest.raises(UserError, match=rf"ckpt-4 cannot be written: /.*/ckpt-4: {fault}\. "):
        checkpoints.on_epoch_end(3)
    assert sorted(folder.iterdir()) == before


def without_images():
    model = Pretrainer(
        keras.Sequential([keras.Input((4,)), layers.Dense(2)]),
        projection_width=2,
        predictor_width=2,
    )
    model.compile()
    return model


def kernel(model):
    return model.backbone.trainable_variables[0]


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, without_images(), 4, total=10)
    checkpoints.on_train_begin()
    assert kept_positions(tmp_path) == [RunPosition(0)]
    for epoch in range(3):
        checkpoints.on_epoch_end(epoch)
    assert kept_positions(tmp_path) == [RunPosition(2), RunPosition(3)]
    again = RunCheckpoints(tmp_path, without_images(), 4, total=10)
    # The last epoch is a short one.
    assert again.restore_newest() == 10
    assert again.position == RunPosition(3)


def test_checkpoint_of_an_earlier_version_is_restored(tmp_path):
    model = without_images()
    kernel(model).assign(np.full(kernel(model).shape, 7.0))
    parts = {"pretrainer": model, "optimizer": model.optimizer}
    saved = tf.train.Checkpoint(**parts, epochs_done=tf.Variable(2, dtype=tf.int64))
    tf.train.CheckpointManager(saved, tmp_path, max_to_keep=2).save(checkpoint_number=2)
    other = without_images()
    assert RunCheckpoints(tmp_path, other, 4).restore_newest() == 8
    np.testing.assert_array_equal(kernel(other), np.full(kernel(model).shape, 7.0))


def test_fresh_folder_restores_nothing(tmp_path):
    assert RunCheckpoints(tmp_path, without_images(), 4).restore_newest() == 0
