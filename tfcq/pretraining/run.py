"""Runs a pre-training: from the newest checkpoint of a run to its end, and saves the backbone."""

import contextlib
import functools
import importlib.metadata
import math

import keras
import tensorflow as tf

from tfcq.data.augmentation import augmentation_from
from tfcq.data.order import steps_per_epoch
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import evaluation_needs, source_from
from tfcq.data.split import Source, Split, view_size
from tfcq.data.views import view_batches
from tfcq.errors import UserError
from tfcq.integer.form import told_refusal
from tfcq.nn.activation_ranges import is_trained_quantized
from tfcq.nn.calibration import calibrate
from tfcq.nn.products import multiply_in
from tfcq.nn.quantizable import QuantizableModel
from tfcq.pretraining.building import built, pretrainer_from
from tfcq.pretraining.memory import check_memory
from tfcq.pretraining.observers import observers
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.settled import in_words, settled
from tfcq.settings.defaults import replaced
from tfcq.settings.policies import INT8
from tfcq.settings.profiling import ProfiledSteps
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_lock import locked
from tfcq.settings.run_position import RunPosition, kept_positions
from tfcq.settings.saving import parse_save_every
from tfcq.settings.training import CALIBRATION_IMAGES, Config, total_steps
from tfcq.settings.training_groups import FLOAT32, DataSettings
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.determinism import make_deterministic
from tfcq.training.distribution import (
    strategy_named,
)
from tfcq.training.history import HistoryFile, Progress
from tfcq.training.profiling import check_made
from tfcq.training.starts import note_start, run_in_words
from tfcq.training.stretches import stretches
from tfcq.training.workers import (
    check_alike,
    ending_with_lost_workers,
    from_chief,
    is_chief,
    shared_out,
    written_by_chief,
)


def train(
    config: Config,
    folder: RunFolder,
    left_open: frozenset[str] = frozenset(),
    profile: ProfiledSteps | None = None,
) -> None:
    """Trains from the newest checkpoint of a run to its end and saves the backbone.

    Args:
        config: the settings.
        folder: where everything is written.
        left_open: settings of a new run that machine and images choose, see
            `tfcq.settings.defaults`.
        profile: steps to profile.

    Raises:
        UserError: when the data cannot be had, or the folder holds another run.
        TrainingStopped: when the loss is NaN, features have collapsed or a worker is lost.
    """
    if config.execution.deterministic:
        make_deterministic()
    # Before the images: several workers come together before TensorFlow computes anything.
    strategy = strategy_named(config.execution.strategy, config.execution.tpu)
    with ending_with_lost_workers(strategy):
        _train_with(strategy, config, folder, left_open, profile)


def _train_with(
    strategy: tf.distribute.Strategy,
    config: Config,
    folder: RunFolder,
    left_open: frozenset[str],
    profile: ProfiledSteps | None,
) -> None:
    """Trains on the devices of a strategy, as `train` does."""
    source = source_from(config.data)
    split = training_split(config.data, source)
    check_alike(
        strategy,
        "Workers were given unlike settings, images or versions of tfcq; allowed: the same "
        "command, the same images and the same version on each.",
        config, sorted(left_open), split.size, split.image_shape,
        importlib.metadata.version("tfcq"),
    )  # fmt: skip
    chief = is_chief(strategy)
    with strategy.scope():
        begins = not from_chief(strategy, len(kept_positions(folder.checkpoints)))[0]
        chosen, pretrainer = built(config, left_open, split, strategy, begins)
    asked, config = config, replaced(config, chosen)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    steps = steps_per_epoch(split, config.optimization.batch_size)
    used = settled(config, split, steps, pretrainer)
    print(in_words(used, channels, pretrainer))
    if used.network.policy == INT8.name and (told := told_refusal(pretrainer.backbone)):
        print(f"The int8 file of this network will be refused: {told}")
    save_every = parse_save_every(config.execution.save_every)
    check_memory(pretrainer, used, size)
    settle = lambda one: settled(replaced(one, chosen), split, steps, pretrainer)  # noqa: E731
    total = total_steps(config.optimization, steps)
    # Before the lock makes a folder.
    check_made(profile, 0, total)
    if chief:
        folder.check(asked, settle)
    with locked(folder.path) if chief else contextlib.nullcontext():
        if chief:
            folder.begin(asked, settle)
        with strategy.scope():
            checkpoints = RunCheckpoints(
                folder.checkpoints, pretrainer, steps, total, save_every, config.execution.keep,
            )  # fmt: skip
            checkpoints.restore_newest((folder.history, folder.backbone))
        epochs = math.ceil(total / steps)
        ended = checkpoints.position.epochs >= epochs and folder.backbone.exists()
        if from_chief(strategy, ended)[0]:
            check_made(profile, total, total)
            print(f"{folder.path}: all {epochs} epochs are trained. Backbone: {folder.backbone}")
            return
        if chief:
            _tell_start(folder, evaluation_needs(source, split), used)
        _train(pretrainer, config, used, folder, split, checkpoints, profile)
        _record_ranges(pretrainer.backbone, split, size)
        with written_by_chief(strategy, folder.path) as made:
            pretrainer.backbone.save(made / folder.backbone.name)
        if chief:
            images = total * used.optimization.batch_size
            print(run_in_words(images, folder.history, folder.checkpoints, folder.starts))
    print(f"Backbone: {folder.backbone}")


def _tell_start(folder: RunFolder, needs: str | None, used: Config) -> None:
    """Prints what a user wants to know before hours are spent.

    Args:
        folder: where the run is.
        needs: what an evaluation of it will need.
        used: what the run uses.
    """
    for line in (folder.told_version(), needs):
        if line:
            print(line)
    if used.network.zero_init_residual and used.network.start is None:
        print("Residual branches start at zero; --zero_init_residual=false starts them at work.")


def _train(
    pretrainer: Pretrainer,
    config: Config,
    used: Config,
    folder: RunFolder,
    split: Split,
    checkpoints: RunCheckpoints,
    profile: ProfiledSteps | None,
) -> None:
    """Trains from where the checkpoints are to the end of the run.

    Args:
        pretrainer: the model.
        config: the settings, with what machine and images chose.
        used: what the run uses, for trackers.
        folder: where everything is written.
        split: the images.
        checkpoints: restored.
        profile: steps to profile.
    """
    position, done = checkpoints.position, checkpoints.done
    steps, total = checkpoints.steps, total_steps(config.optimization, checkpoints.steps)
    print(
        f"{folder.path}: {split.size} images, {steps} steps an epoch, epochs "
        f"{position.in_words} to {math.ceil(total / steps)}"
    )
    print("Building the graph of a step, which takes up to a minute ...", flush=True)
    callbacks: list[keras.callbacks.Callback] = []
    if checkpoints.chief:
        callbacks = [
            HistoryFile(folder.history, position.epochs),
            *observers(used, folder, split, pretrainer.backbone, (done, total), profile),
            Progress(total, steps, done, length=config.optimization.length()),
        ]
        note_start(folder.starts, done)
    # Last, so that a checkpoint never knows of an epoch that the history does not.
    callbacks.append(checkpoints)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    augmentation = augmentation_from(config.views, size, channels)
    batch_size, seed = config.optimization.batch_size, config.execution.seed
    with checkpoints.saving_at_signals():
        for part in stretches(done, steps, total):
            # What is left of an epoch, or a short last one, may need smaller calls.
            together = math.gcd(part.steps, config.execution.steps_per_execution)
            if pretrainer.steps_per_execution != together:
                pretrainer.steps_per_execution = together
                pretrainer.make_train_function(force=True)
            views = functools.partial(
                view_batches, split, augmentation, size, batch_size, seed, part.first,
                views=pretrainer.recipe.views, first_step=part.first_step,
            )  # fmt: skip
            pretrainer.fit(
                shared_out(checkpoints.strategy, batch_size, views),
                epochs=part.last, initial_epoch=part.first, steps_per_epoch=part.steps,
                verbose=0, callbacks=callbacks,
            )  # fmt: skip


def _record_ranges(backbone: QuantizableModel, split: Split, size: int) -> None:
    """Gives a network with float passes the ranges of the training images themselves."""
    if not is_trained_quantized(backbone):
        # Its file does not tell otherwise, so that it is run so.
        multiply_in(backbone, FLOAT32)
        images, _ = labelled_arrays(split, size, min(split.size, CALIBRATION_IMAGES))
        calibrate(backbone, images)


def backbone_at(config: Config, folder: RunFolder, position: RunPosition) -> QuantizableModel:
    """Returns the backbone of a run as a checkpoint has it, ready to be evaluated.

    Args:
        config: the settings of the run.
        folder: its folder.
        position: of the checkpoint.

    Raises:
        UserError: when the data or the checkpoint cannot be read.
    """
    split = training_split(config.data)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    steps = steps_per_epoch(split, config.optimization.batch_size)
    pretrainer = pretrainer_from(config, (size, size, channels), steps, begins=False)
    RunCheckpoints(folder.checkpoints, pretrainer, steps).restore(position)
    _record_ranges(pretrainer.backbone, split, size)
    return pretrainer.backbone


def training_split(data: DataSettings, source: Source | None = None) -> Split:
    """Returns the images that pre-training uses.

    Args:
        data: the settings.
        source: the data set of the settings; None to open it.

    Raises:
        UserError: when fewer images are there than asked for.
    """
    split = (source or source_from(data)).split("train")
    split = split.first(data.train_images) if data.train_images else split
    if split.size < 2:
        raise UserError(f"Training on one image of {data.dataset}; allowed: at least 2.")
    return split
