"""What limits a training: its views alone, its step alone, and both together.

    .venv/bin/python tools/bench.py training --train="--dataset=digits --batch_size=64"

Images a second by the clock, medians over rounds in which the three take turns in one process.
"""

import argparse
import shlex
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.alone import alone

from tfcq import train
from tfcq.errors import UserError

# Of tfcq.train: views and step are measured on one device, a step a call.
UNUSED = {"strategy", "steps_per_execution"}
VIEWS, STEP, BOTH = "views alone", "step alone", "both"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what is trained, and for how long it is measured."""
    parser.add_argument("--train", default="", help="flags of tfcq.train, in one pair of quotes")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for views, step and both.

    Raises:
        UserError: on flags of a training that would change no figure.
    """
    words = shlex.split(arguments.train)
    for name in sorted(UNUSED & train.flag_set().parse(words).given):
        raise UserError(f"--{name} in --train changes no figure here; leave it out.")
    seconds, images = alone("training:measured", words, arguments.steps, arguments.rounds)
    return in_turn(seconds, images)


def in_turn(seconds: dict[str, float], images: int) -> list[dict[str, Any]]:
    """Returns rows of images a second, and which of views and step limits both.

    Args:
        seconds: of each.
        images: how many each was made of.
    """
    limit = max((VIEWS, STEP), key=seconds.__getitem__)
    return [
        {"what": name, "images/s": images / taken, "over both": seconds[BOTH] / taken}
        | {"limits": "yes" if name == limit else ""}
        for name, taken in seconds.items()
    ]


def measured(words: list[str], steps: int, rounds: int) -> tuple[dict[str, float], int]:
    """Returns the seconds of views, step and both, and the images that each is made of.

    Args:
        words: flags of tfcq.train.
        steps: timed steps of a round.
        rounds: measured turns.
    """
    import tensorflow as tf

    from tfcq.data.augmentation import augmentation_from
    from tfcq.data.split import view_size
    from tfcq.data.views import view_batches
    from tfcq.pretraining.building import built
    from tfcq.pretraining.run import training_split
    from tfcq.settings.defaults import replaced

    config, _, left_open = train.settings_of(train.flag_set().parse(words))
    split = training_split(config.data)
    chosen, model = built(config, left_open, split, tf.distribute.get_strategy(), True)
    config = replaced(config, chosen)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    batch_size = config.optimization.batch_size
    augmentation = augmentation_from(config.views, size, channels)
    batches = view_batches(split, augmentation, size, batch_size, 0, views=model.recipe.views)
    held = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    model.make_train_function()
    takes = {
        VIEWS: (batches, next),
        STEP: (held, model.train_function),
        BOTH: (batches, model.train_function),
    }
    # Each traces once.
    found = [{name: timed(*each, steps) for name, each in takes.items()} for _ in range(rounds + 1)]
    medians = {name: statistics.median(one[name] for one in found[1:]) for name in takes}
    return medians, steps * batch_size


def timed(batches: Any, take: Callable[[Iterator], Any], steps: int) -> float:
    """Returns the seconds of steps, behind as many that use up what was made ahead.

    Args:
        batches: a data set.
        take: takes a batch from an iterator over it.
        steps: how many.
    """
    endless = iter(batches)
    for _ in range(steps):
        take(endless)
    start = time.perf_counter()
    for _ in range(steps):
        take(endless)
    return time.perf_counter() - start
