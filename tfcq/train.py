"""Pre-trains a backbone: `python -m tfcq.train --flagfile=flags/ssql.cfg`."""

import dataclasses
import math

from tfcq import command_line
from tfcq.config import CALIBRATION_IMAGES, Config, config_from_flat, flat
from tfcq.errors import UserError
from tfcq.pretraining.recipes import RECIPES
from tfcq.run_folder import RunFolder, default_run_dir
from tfcq.unused_settings import check_used


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet("Pre-trains a backbone without labels: python -m tfcq.train")
    flags.add("General", "run_dir", str, None, "folder of the run; a run there is gone on with")
    flags.add("General", "list_recipes", bool, False, "print the recipes and leave")
    for group in dataclasses.fields(Config):
        flags.add_settings(group.default.__doc__.rstrip("."), group.default)
    return flags


def main(command: command_line.Command) -> None:
    """Trains, or goes on with, one run.

    Args:
        command: the parsed command line.
    """
    if command.values["list_recipes"]:
        print_recipes()
        return
    names = flat(Config())
    config = config_from_flat({k: v for k, v in command.values.items() if k in names})
    check_used(config, command.given)
    folder = RunFolder(command.values["run_dir"] or default_run_dir(config))
    folder.check(config)
    command_line.quiet_start_up(command.values["verbosity"], config.execution.deterministic)
    train(config, folder)


def print_recipes() -> None:
    """Prints every recipe as the text that --recipe takes."""
    for name, recipe in RECIPES.items():
        print(f"{name:<22}{recipe}")


def train(config: Config, folder: RunFolder) -> None:
    """Trains from the newest checkpoint of a run to its end and saves the backbone.

    Args:
        config: the settings.
        folder: where everything is written.

    Raises:
        UserError: when the data cannot be had, or the folder holds another run.
        TrainingStopped: when the loss is NaN or features have collapsed.
    """
    import keras

    from tfcq import build
    from tfcq.data.pipeline import labelled_arrays, steps_per_epoch, view_batches
    from tfcq.evaluation.calibration import calibrate
    from tfcq.files import whole_file
    from tfcq.nn.activation_ranges import is_trained_quantized
    from tfcq.training.checkpoints import RunCheckpoints
    from tfcq.training.determinism import make_deterministic
    from tfcq.training.distribution import check_batch_size, strategy_named
    from tfcq.training.history import HistoryFile, Progress

    keras.utils.set_random_seed(config.execution.seed)
    if config.execution.deterministic:
        make_deterministic()
    split = build.training_split(config)
    shape = build.image_shape(config, split)
    augmentation = build.augmentation(config, shape)
    batch_size, seed = config.optimization.batch_size, config.execution.seed
    steps = steps_per_epoch(split, batch_size)
    total = build.total_steps(config.optimization, steps)
    strategy = strategy_named(config.execution.strategy)
    check_batch_size(batch_size, strategy.num_replicas_in_sync)
    with strategy.scope():
        pretrainer = build.pretrainer(config, shape, steps)
        folder.begin(config)
        checkpoints = RunCheckpoints(folder.checkpoints, pretrainer)
        done = checkpoints.restore()
    if done == 0 and folder.backbone.exists():
        raise UserError(
            f"The run in {folder.path} has ended and its checkpoints are gone; training would "
            "replace its backbone. Give another --run_dir."
        )
    # The last epoch may be cut short.
    epochs = math.ceil(total / steps)
    if done >= epochs and folder.backbone.exists():
        print(f"{folder.path}: all {epochs} epochs are trained. Backbone: {folder.backbone}")
        return
    print(f"{folder.path}: {split.size} images, {steps} steps an epoch, epochs {done} to {epochs}")
    if config.network.zero_init_residual:
        print("Residual branches start at zero; --zero_init_residual=false starts them at work.")
    print("The first step builds the graph, which takes about as long as some steps.", flush=True)
    callbacks = [
        HistoryFile(folder.history, done),
        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False),
        Progress(total, steps, done),
        # Last, so that a checkpoint never knows of an epoch that the history does not.
        checkpoints,
    ]
    whole_epochs = total // steps
    for first, last, length in ((done, whole_epochs, steps), (whole_epochs, epochs, total % steps)):
        first = max(first, done)
        if first < last:
            views = view_batches(
                split,
                augmentation,
                shape[0],
                batch_size,
                seed,
                first_epoch=first,
                views=pretrainer.recipe.views,
            )
            pretrainer.fit(
                views,
                epochs=last,
                initial_epoch=first,
                steps_per_epoch=length,
                verbose=0,
                callbacks=callbacks,
            )
    if not is_trained_quantized(pretrainer.backbone):
        images, _ = labelled_arrays(split, shape[0], min(split.size, CALIBRATION_IMAGES))
        calibrate(pretrainer.backbone, images)
    with whole_file(folder.backbone) as temporary:
        pretrainer.backbone.save(temporary)
    print(f"Backbone: {folder.backbone}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
