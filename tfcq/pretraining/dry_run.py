"""A run that is checked and counted and not begun: `python -m tfcq.train --dry_run`."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from tfcq.data.order import steps_per_epoch
from tfcq.data.split import Split, view_size
from tfcq.data.tfds_builder import NotPrepared
from tfcq.errors import UserError
from tfcq.nn.flops import forward_flops, uncounted
from tfcq.pretraining.accumulation import check_accumulation
from tfcq.pretraining.building import built
from tfcq.pretraining.costs import (
    all_gather_bytes,
    all_reduce_bytes,
    bytes_of,
    pass_counts,
    step_flops,
)
from tfcq.pretraining.memory import activation_bytes, check_memory
from tfcq.pretraining.moco import MoCoV2
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.run import training_split
from tfcq.pretraining.settled import in_words, settled
from tfcq.settings.defaults import replaced
from tfcq.settings.devices import Devices
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_position import kept_positions
from tfcq.settings.training import Config, total_steps
from tfcq.settings.training_groups import MULTI_WORKER, DataSettings, ExecutionSettings
from tfcq.training.distribution import check_batch_size, strategy_named

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (0, ""))


class Figure(NamedTuple):
    """A figure of a plan.

    Args:
        name: what it is, as JSON names it.
        value: the number.
        words: the number as it is read.
    """

    name: str
    value: float
    words: str


def dry_run(
    config: Config, folder: RunFolder, left_open: frozenset[str], devices: Devices | None
) -> str:
    """Checks what a run checks before its first step, and counts what it will take.

    Nothing is written or trained, and no checkpoint is read.

    Args:
        config: the settings.
        folder: where the run would be.
        left_open: settings that machine and images choose, see `tfcq.settings.defaults`.
        devices: the accelerators that it is planned for; None for this machine.

    Returns:
        The figures, a line each, and once more as one line of JSON.

    Raises:
        UserError: as the run would.
    """
    if config.data.download:
        raise UserError("--download with --dry_run, which writes nothing; leave it out.")
    if devices is not None:
        _check_devices(devices, config.execution)
        dtype = devices.dtype(config.execution.product_dtype)
        config = replaced(config, {"product_dtype": dtype})
    split = _images(config.data)
    begins = not kept_positions(folder.checkpoints)
    execution = config.execution
    if devices is None and execution.strategy == MULTI_WORKER:
        raise UserError(
            "--dry_run asks no other worker of --strategy=multi_worker; name the accelerators of "
            "all, such as --devices=8xA100."
        )
    if devices is None:
        strategy = strategy_named(execution.strategy, execution.tpu)
    else:
        # Built here on what there is; on accelerators nothing is chosen for want of one.
        strategy, left_open = tf.distribute.get_strategy(), frozenset()
    chosen, model = built(config, left_open, split, strategy, begins)
    replicas = strategy.num_replicas_in_sync if devices is None else devices.count
    batch_size = replaced(config, chosen).optimization.batch_size
    check_batch_size(batch_size, replicas)
    steps = steps_per_epoch(split, batch_size)
    used = settled(replaced(config, chosen), split, steps, model)
    print(in_words(used, split.image_shape[2], model))
    folder.check(config, lambda one: settled(replaced(one, chosen), split, steps, model))
    if None in model.backbone.input_shape[1:]:
        raise UserError(
            f"--dry_run with --backbone={config.network.backbone}, which takes images of any size "
            "and is not counted; allowed: networks of one size."
        )
    if devices is None:
        check_memory(model, used, view_size(split, used.data.image_size))
    for name in [name for network in model.networks for name in uncounted(network)]:
        print(f"Operations of layer {name!r} are not counted.")
    if devices is not None:
        print(devices.in_words(used.execution.product_dtype))
    if replicas > 1:
        print(f"Bytes are those of each of {replicas} replicas; images and step flops of all.")
    figures = list(figures_of(model, used, split.size, steps, replicas, devices))
    width = max(len(one.name) for one in figures) + 2
    lines = [f"{one.name.replace('_', ' '):<{width}}{one.words}" for one in figures]
    return "\n".join([*lines, json.dumps({one.name: one.value for one in figures})])


def _check_devices(devices: Devices, execution: ExecutionSettings) -> None:
    """Refuses accelerators that the run would not use.

    Args:
        devices: the accelerators.
        execution: how the run is executed.

    Raises:
        UserError: naming the strategies that use all.
    """
    if execution.strategy not in (allowed := devices.strategies):
        raise UserError(
            f"--strategy={execution.strategy} does not train on the {devices.count} of --devices "
            f"({devices.name}); allowed: --strategy={', '.join(allowed)}."
        )
    check_accumulation(execution.accumulate, devices.count)


def _images(data: DataSettings) -> Split:
    """Returns the training images, or where TFDS has not prepared them what the flags say."""
    try:
        return training_split(data)
    except NotPrepared as error:
        if data.train_images is None or data.image_size is None:
            raise UserError(
                f"{error} A dry run needs no images beside --train_images and --image_size."
            ) from None
        print(f"Data set {data.dataset!r} is not prepared; images are taken as the flags say.")
    return Split(
        name="train",
        size=data.train_images,
        image_shape=(None, None, int(data.channels or 3)),
        class_names=None,
        records=tf.data.Dataset.range(0),
        decode=lambda record: record,
        record_bytes=1,
    )


def figures_of(
    model: Pretrainer,
    used: Config,
    images: int,
    steps: int,
    replicas: int,
    devices: Devices | None = None,
) -> Iterator[Figure]:
    """Yields the figures of a plan.

    Args:
        model: the model that is trained.
        used: what the run uses, settled.
        images: training images.
        steps: steps of an epoch.
        replicas: how many there are.
        devices: the accelerators, for what depends on their speed.
    """
    batch_size = used.optimization.batch_size
    synchronized = used.execution.batch_norm == "synchronized"
    total = total_steps(used.optimization, steps)
    yield _count("images", images)
    yield _count("epochs", math.ceil(total / steps))
    yield _count("steps", total)
    yield _count("images_in_all", total * batch_size)
    yield _count("trained_parameters", _values(model.trainable_variables))
    if (network := model.momentum_network) is not None:
        following = network.pairs(model.backbone, model.framework.projector)
        yield _count("momentum_parameters", _values([own for own, _ in following]))
    trained, further = pass_counts(model)
    yield _count("trained_passes", trained)
    yield _count("further_passes", further)
    flops = step_flops(model, batch_size)
    yield _scaled("forward_flops_of_an_image", forward_flops(model.backbone), "FLOP")
    yield _scaled("step_flops", flops, "FLOP")
    memory = dict(_memory(model, batch_size // replicas))
    for name, value in memory.items():
        yield _scaled(name, value, "B")
    yield _scaled("memory_bytes", needed := sum(memory.values()), "B")
    reduced = all_reduce_bytes(model, batch_size, synchronized)
    gathered = all_gather_bytes(model, batch_size, replicas, synchronized)
    yield _scaled("all_reduce_bytes", reduced, "B")
    yield _scaled("all_gather_bytes", gathered, "B")
    if devices is not None:
        seconds = seconds_per_step(devices, used.execution.product_dtype, flops, reduced, gathered)
        yield from _times(seconds, total, batch_size)
        room = devices.device.memory * 1e9
        fits = "enough" if needed <= room else "NOT ENOUGH"
        words = f"{fits}: {_prefixed(needed, 'B')} of {_prefixed(room, 'B')}"
        yield Figure("memory_fits", needed <= room, words)
        activations = memory["activation_bytes"]
        share = (room - needed + activations) / activations
        yield _largest_batch(share * batch_size / replicas, replicas, used.execution.accumulate)


def _largest_batch(images: float, replicas: int, parts: int) -> Figure:
    """Returns the largest batch of which a replica's memory holds its share of the images."""
    whole = math.floor(images) // parts * parts
    # A batch norm wants two of each part.
    largest = whole * replicas if whole >= 2 * parts else 0
    none = "none; a smaller --width or --image_size is needed"
    return Figure("largest_batch_size", largest, f"{largest:,}" if largest else none)


def _memory(model: Pretrainer, images: int) -> Iterator[tuple[str, int]]:
    """Yields what a replica holds, in bytes.

    Args:
        model: the model that is trained.
        images: of a replica.
    """
    framework = model.framework
    queue = [framework.queue] if isinstance(framework, MoCoV2) else []
    held = {id(one) for one in [*queue, *model.optimizer.variables]}
    yield "activation_bytes", activation_bytes(model, images)
    yield "variable_bytes", bytes_of([one for one in model.variables if id(one) not in held])
    yield "gradient_bytes", bytes_of(model.trainable_variables)
    yield "optimizer_bytes", bytes_of(model.optimizer.variables)
    yield "queue_bytes", bytes_of(queue)


def seconds_per_step(
    devices: Devices, dtype: str, flops: int, reduced: int, gathered: int
) -> float:
    """Returns how long a step takes where nothing is exchanged while something is computed.

        flops / (n peak share) + (n - 1) / n (2 reduced + gathered) / links

    Sums go twice around a ring of n replicas, what is gathered once (Thakur, Rabenseifner and
    Gropp, "Optimization of Collective Communication Operations in MPICH", 2005, Sec. 4).

    Args:
        devices: the accelerators.
        dtype: of products.
        flops: operations of a step, over all replicas.
        reduced: bytes that each replica adds to sums.
        gathered: bytes that each replica gathers.
    """
    count, device = devices.count, devices.device
    rate = count * device.peak[dtype] * 1e12 * devices.share_of_peak(dtype)
    exchanged = (count - 1) / count * (2 * reduced + gathered)
    return flops / rate + exchanged / (device.links * 1e9)


def _times(seconds: float, total: int, batch_size: int) -> Iterator[Figure]:
    hours = seconds * total / 3600
    yield Figure("seconds_per_step", seconds, f"{seconds:.3g}")
    yield Figure("steps_per_second", 1 / seconds, f"{1 / seconds:.3g}")
    yield Figure("images_per_second", batch_size / seconds, f"{batch_size / seconds:,.0f}")
    yield Figure("hours", hours, f"{hours:.3g}")


def _values(variables: list[Any]) -> int:
    return sum(math.prod(one.shape) for one in variables)


def _count(name: str, value: int) -> Figure:
    return Figure(name, value, f"{value:,}")


def _scaled(name: str, value: int, unit: str) -> Figure:
    return Figure(name, value, _prefixed(value, unit))


def _prefixed(value: float, unit: str) -> str:
    """Returns a number in three digits with the prefix of its unit, such as `1.81 GB`."""
    limit, prefix = next(one for one in _PREFIXES if value >= one[0])
    return f"{value / (limit or 1):.3g} {prefix}{unit}"
