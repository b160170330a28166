"""Runs a pre-training: from the newest checkpoint of a run to its end, and saves the backbone."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfcq.backbones.build import backbone_from
from tfcq.data.augmentation import augmentation_from
from tfcq.data.pipeline import labelled_arrays, steps_per_epoch, view_batches
from tfcq.data.sources import evaluation_needs, source_from
from tfcq.data.split import Source, Split, view_size
from tfcq.errors import UserError
from tfcq.files import whole_file
from tfcq.integer.form import told_refusal
from tfcq.nn.activation_ranges import is_trained_quantized
from tfcq.nn.calibration import calibrate
from tfcq.nn.products import multiply_in, product_dtype
from tfcq.nn.quantizable import QuantizableModel
from tfcq.pretraining.accumulation import check_parts
from tfcq.pretraining.memory import batch_that_fits, check_memory, has_accelerator
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.settled import in_words, settled
from tfcq.pretraining.start import check_start, give_start
from tfcq.settings.defaults import choice, replaced
from tfcq.settings.fields import flat
from tfcq.settings.policies import INT8, Policy
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_lock import locked
from tfcq.settings.run_position import RunPosition, kept_positions
from tfcq.settings.saving import parse_save_every
from tfcq.settings.training import CALIBRATION_IMAGES, Config, for_images, policy, total_steps
from tfcq.settings.training_groups import FLOAT16, DataSettings
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.determinism import make_deterministic
from tfcq.training.distribution import (
    check_batch_size,
    strategy_named,
    synchronize,
)
from tfcq.training.history import HistoryFile, Progress
from tfcq.training.optimizers import optimizer_from
from tfcq.training.stretches import stretches
from tfcq.training.trackers import tracker


def train(config: Config, folder: RunFolder, left_open: frozenset[str] = frozenset()) -> None:
    """Trains from the newest checkpoint of a run to its end and saves the backbone.

    Args:
        config: the settings.
        folder: where everything is written.
        left_open: settings of a new run that machine and images choose, see
            `tfcq.settings.defaults`.

    Raises:
        UserError: when the data cannot be had, or the folder holds another run.
        TrainingStopped: when the loss is NaN or features have collapsed.
    """
    if config.execution.deterministic:
        make_deterministic()
    source = source_from(config.data)
    split = training_split(config.data, source)
    strategy = strategy_named(config.execution.strategy)
    with strategy.scope():
        begins = not kept_positions(folder.checkpoints)
        chosen, pretrainer = _built(config, left_open, split, strategy, begins)
    asked, config = config, replaced(config, chosen)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    steps = steps_per_epoch(split, config.optimization.batch_size)
    used = settled(config, split, steps, pretrainer)
    print(in_words(used, channels, pretrainer))
    if used.network.policy == INT8.name and (told := told_refusal(pretrainer.backbone)):
        print(f"The int8 file of this network will be refused: {told}")
    check_memory(pretrainer, used, size)
    settle = lambda one: settled(replaced(one, chosen), split, steps, pretrainer)  # noqa: E731
    # Before the lock makes a folder.
    folder.check(asked, settle)
    with locked(folder.path):
        folder.begin(asked, settle)
        total = total_steps(config.optimization, steps)
        with strategy.scope():
            checkpoints = RunCheckpoints(
                folder.checkpoints, pretrainer, steps, total,
                parse_save_every(config.execution.save_every), config.execution.keep,
            )  # fmt: skip
            checkpoints.restore_newest((folder.history, folder.backbone))
        epochs = math.ceil(total / steps)
        if checkpoints.position.epochs >= epochs and folder.backbone.exists():
            print(f"{folder.path}: all {epochs} epochs are trained. Backbone: {folder.backbone}")
            return
        for line in (folder.told_version(), evaluation_needs(source, split)):
            if line:
                print(line)
        if used.network.zero_init_residual and used.network.start is None:
            print(
                "Residual branches start at zero; --zero_init_residual=false starts them at work."
            )
        _train(pretrainer, config, used, folder, split, checkpoints)
        _record_ranges(pretrainer.backbone, split, size)
        with whole_file(folder.backbone) as temporary:
            pretrainer.backbone.save(temporary)
    print(f"Backbone: {folder.backbone}")


def _train(
    pretrainer: Pretrainer,
    config: Config,
    used: Config,
    folder: RunFolder,
    split: Split,
    checkpoints: RunCheckpoints,
) -> None:
    """Trains from where the checkpoints are to the end of the run.

    Args:
        pretrainer: the model.
        config: the settings, with what machine and images chose.
        used: what the run uses, for trackers.
        folder: where everything is written.
        split: the images.
        checkpoints: restored.
    """
    position, done = checkpoints.position, checkpoints.done
    steps, total = checkpoints.steps, total_steps(config.optimization, checkpoints.steps)
    print(
        f"{folder.path}: {split.size} images, {steps} steps an epoch, epochs "
        f"{position.in_words} to {math.ceil(total / steps)}"
    )
    print("Building the graph of a step, which takes up to a minute ...", flush=True)
    callbacks = [
        HistoryFile(folder.history, position.epochs),
        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False),
        *_trackers(used, folder),
        Progress(total, steps, done, length=config.optimization.length()),
        # Last, so that a checkpoint never knows of an epoch that the history does not.
        checkpoints,
    ]
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    augmentation = augmentation_from(config.views, size, channels)
    batch_size, seed = config.optimization.batch_size, config.execution.seed
    with checkpoints.saving_at_signals():
        for part in stretches(done, steps, total):
            views = view_batches(
                split, augmentation, size, batch_size, seed, part.first,
                views=pretrainer.recipe.views, first_step=part.first_step,
            )  # fmt: skip
            pretrainer.fit(
                views, epochs=part.last, initial_epoch=part.first, steps_per_epoch=part.steps,
                verbose=0, callbacks=callbacks,
            )  # fmt: skip


def _built(
    config: Config,
    left_open: frozenset[str],
    split: Split,
    strategy: tf.distribute.Strategy,
    begins: bool,
) -> tuple[dict[str, Any], Pretrainer]:
    """Builds the model of a run, and tells what machine and images chose for it.

    Returns:
        The values that were chosen, by setting, and the model.
    """
    chosen = choice(config, left_open, split.image_shape, split.size, has_accelerator())
    replicas = strategy.num_replicas_in_sync

    def model() -> tuple[int, Pretrainer]:
        # Anew: a network begins as that of a run that was given what is chosen.
        keras.utils.set_random_seed(config.execution.seed)
        settings = replaced(config, chosen.values)
        batch_size = settings.optimization.batch_size
        steps = steps_per_epoch(split, batch_size)
        check_batch_size(batch_size, replicas)
        check_parts(batch_size, settings.execution.accumulate)
        size = view_size(split, settings.data.image_size)
        shape = (size, size, split.image_shape[2])
        return batch_size, pretrainer_from(settings, shape, steps, begins)

    try:
        batch_size, pretrainer = model()
        fitting = batch_size
        if "batch_size" in left_open:
            fitting = batch_that_fits(pretrainer, batch_size, replicas)
        if fitting < batch_size:
            chosen.values["batch_size"] = fitting
            chosen.reasons.append(f"A step of {batch_size} images exceeds the memory")
            _, pretrainer = model()
    finally:
        # Also above an error, which may come of it.
        if chosen.values:
            print(chosen.in_words())
    return chosen.values, pretrainer


def _trackers(used: Config, folder: RunFolder) -> list[keras.callbacks.Callback]:
    """Returns the callback of the experiment tracker, if one was asked for."""
    name = used.execution.tracker
    return [tracker(name, folder.tracked_run, folder.path.name, flat(used))] if name else []


def _record_ranges(backbone: QuantizableModel, split: Split, size: int) -> None:
    """Gives a network with float passes the ranges of the training images themselves."""
    if not is_trained_quantized(backbone):
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


def pretrainer_from(
    config: Config, shape: tuple[int, int, int], steps: int, begins: bool = True
) -> Pretrainer:
    """Returns the compiled model that pre-trains the run's backbone.

    Args:
        config: the settings.
        shape: height, width and channels of a view.
        steps: steps per epoch.
        begins: whether the run begins, with the weights of another one if it names one.

    Raises:
        UserError: on settings that do not fit each other or the length of the run.
    """
    config = for_images(config, shape[0])
    method = config.method
    if begins:
        check_start(config.network, shape[2])
    backbone = backbone_from(config.network, shape)
    if begins:
        give_start(backbone, config.network)
    model = Pretrainer(
        backbone,
        framework=method.framework,
        recipe=method.recipe,
        weight_bits=method.weight_bits,
        activation_bits=method.activation_bits,
        precision_set=method.precision_set,
        bit_schedule=method.bit_schedule,
        policy=_policy_for(config, backbone),
        seed=config.execution.seed,
        loss_reduction=method.loss_reduction,
        error_correlation=config.execution.error_correlation,
        shuffle_keys=config.execution.batch_norm == "shuffled",
        accumulate=config.execution.accumulate,
        **method.framework_settings(),
    )
    model.set_run_length(steps, total_steps(config.optimization, steps))
    products = product_dtype(config.execution.product_dtype)
    for network in model.networks:
        multiply_in(network, products)
        if config.execution.batch_norm == "synchronized":
            synchronize(network)
    optimizer = optimizer_from(config.optimization, steps)
    if products == FLOAT16:
        # Gradients below its smallest value would be zero.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, jit_compile=config.execution.xla)
    return model


def _policy_for(config: Config, network: keras.Model) -> Policy | None:
    """Returns how a backbone becomes quantizable; None for one that is so already."""
    if not isinstance(network, QuantizableModel):
        return policy(config)
    for name in ("policy", "layer_bits", "weight_quantizer", "activation_quantizer", "rounding"):
        if getattr(config.network, name) != getattr(type(config.network)(), name):
            raise UserError(
                f"--{name} has no effect here: {config.network.backbone} holds a model that is "
                "quantizable already, with quantizers of its own; leave it out."
            )
    return None
