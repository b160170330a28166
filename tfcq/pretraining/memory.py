"""The memory that a step of pre-training takes, estimated before the first one."""

import math
import pathlib
import subprocess
from collections.abc import Iterator

import keras
import psutil
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.backbones import LARGE_IMAGE, settings_of
from tfcq.settings.training import Config

_FLOAT_BYTES = 4
# Graph, kernels' workspace and allocator of each pass, whatever its images: results/memory.md.
_PASS_BYTES = 110 * 10**6
# A weight, its gradient and its optimizer's state.
_COPIES_OF_WEIGHTS = 3
# What a container may take: version 2 of control groups, then version 1; limit and use.
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_LEAST_BATCH, _LEAST_WIDTH, _LEAST_SIZE = 8, 8, 8


def step_bytes(model: Pretrainer, batch_size: int) -> int | None:
    """Returns about how much memory a step takes, within a factor of 1.5 of what was measured.

    The backbone's activations of every pass are held until the gradient is there; results/memory.md
    has the figures.

    Args:
        model: the model that is trained.
        batch_size: images per step.

    Returns:
        Bytes; None for a network whose images may have any size.
    """
    if None in model.backbone.input_shape[1:]:
        return None
    return _fixed_bytes(model) + batch_size * _bytes_per_image(model)


def _fixed_bytes(model: Pretrainer) -> int:
    weights = sum(math.prod(w.shape) for network in model.networks for w in network.weights)
    passes = _PASS_BYTES * len(model.online_passes)
    return passes + weights * _FLOAT_BYTES * _COPIES_OF_WEIGHTS


def _bytes_per_image(model: Pretrainer) -> int:
    values = sum(_sizes(model.backbone))
    return values * _FLOAT_BYTES * len(model.online_passes) // model.accumulate


def _sizes(network: keras.Model) -> Iterator[int]:
    """Yields how many values each layer returns of an image."""
    for layer in network.layers:
        if isinstance(layer, (keras.Sequential, keras.Model)) and layer.layers:
            yield from _sizes(layer)
            continue
        for output in keras.tree.flatten(layer.output):
            yield math.prod(size or 1 for size in output.shape[1:])


def available_bytes(groups: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Returns how much memory this process may still take: of the machine, and of its container.

    Args:
        groups: where the system tells of control groups.
    """
    available = psutil.virtual_memory().available
    for limit, use in _LIMITS:
        try:
            rest = int((groups / limit).read_text()) - int((groups / use).read_text())
        except (OSError, ValueError):
            # There is no such group, or it has no limit ("max").
            continue
        available = min(available, max(rest, 0))
    return available


def has_accelerator() -> bool:
    """Whether TensorFlow sees another device than CPUs."""
    return len(tf.config.list_physical_devices()) > len(tf.config.list_physical_devices("CPU"))


def accelerator_bytes() -> int | None:
    """Returns the memory of the smallest GPU; None where nothing tells of it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(int(line) for line in told.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def batch_that_fits(model: Pretrainer, batch_size: int, replicas: int) -> int:
    """Returns a batch, halved until a step fits into memory or it has 8 images a replica.

    Args:
        model: the model that is trained.
        batch_size: images per step, over all replicas.
        replicas: number of replicas, each on an accelerator of its own, or all on the CPU.
    """
    room = accelerator_bytes() if has_accelerator() else available_bytes()
    if not has_accelerator():
        replicas = 1

    def fits(batch: int) -> bool:
        needed = step_bytes(model, batch // replicas)
        return needed is None or room is None or needed <= room

    while not fits(batch_size) and batch_size // 2 >= _LEAST_BATCH * replicas:
        batch_size //= 2
    return batch_size


def check_memory(model: Pretrainer, config: Config, size: int) -> None:
    """Refuses a run whose steps cannot fit into memory.

    Accelerators have their own, of which nothing is known here.

    Args:
        model: the model that is trained.
        config: the settings of the run, settled.
        size: height and width of a view, in pixels.

    Raises:
        UserError: with the flags that make it fit.
    """
    if has_accelerator():
        return
    batch_size = config.optimization.batch_size
    needed, available = step_bytes(model, batch_size), available_bytes()
    if needed is None or needed <= available:
        return
    flags = _flags_that_fit(model, config, size, available)
    way_out = f"such as {' or '.join(flags)}" if flags else "a machine with more memory"
    raise UserError(
        f"A step takes about {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free "
        f"(batch {batch_size}, views of {size}x{size} pixels); allowed: what fits, {way_out}."
    )


def _flags_that_fit(model: Pretrainer, config: Config, size: int, available: int) -> list[str]:
    """Returns flags of which each alone makes a step fit; none where none does."""
    network, batch_size = config.network, config.optimization.batch_size
    room = available - _fixed_bytes(model)
    if room <= 0:
        return []
    share, flags = room / (batch_size * _bytes_per_image(model)), []
    # A power of two, as batches usually are.
    if (batch := 2 ** math.floor(math.log2(max(share * batch_size, 1)))) >= _LEAST_BATCH:
        flags.append(f"--batch_size={batch}")
    chosen = "stem" in settings_of(network.backbone)
    # Smaller views would have the first layers of small images, which take more.
    least = LARGE_IMAGE if chosen and network.stem == "imagenet" else _LEAST_SIZE
    step = 32 if size > LARGE_IMAGE else 4
    if (smaller := math.floor(size * math.sqrt(share) / step) * step) >= least:
        flags.append(f"--image_size={smaller}")
    if network.width and (width := math.floor(network.width * share / 8) * 8) >= _LEAST_WIDTH:
        flags.append(f"--width={width}")
    return flags
