"""How much memory a training step takes, told before the first one would take the machine down."""

import math
import pathlib

import keras

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.pretraining.pretrainer import Pretrainer

# Tensors of a layer's output that a step holds at its peak, forward and backward: measured, see
# `tools/step_memory.py` and `results/step_memory.json`.
_TENSORS = 1.0
# Weights, gradients, what the optimizer remembers, and a copy of each pass's.
_WEIGHT_COPIES = 4
# The stem for large images leaves a quarter of each side to the first stage.
_STEM_SAVES = 16
_BYTES = 4
_MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/proc/meminfo")


def step_bytes(model: Pretrainer, batch_size: int, size: int) -> int:
    """Returns about how many bytes a training step takes beside the program itself.

        batch * passes * outputs of all layers * 4 bytes * tensors held + weights * copies * 4

    Args:
        model: the model that is trained.
        batch_size: images per step on one replica.
        size: height and width of a view, in pixels.
    """
    values = _outputs(model.backbone, size)
    passes = len(model.online_passes)
    weights = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    activations = batch_size * passes * values * _TENSORS
    return int(_BYTES * (activations + weights * _WEIGHT_COPIES))


def _outputs(model: keras.Model, size: int) -> int:
    """Returns how many numbers the outputs of all layers of one image have."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += _outputs(layer, size)
        elif not isinstance(layer, (ActivationQuantizer, keras.layers.InputLayer)):
            for output in keras.tree.flatten(layer.output):
                total += math.prod(length or size for length in output.shape[1:])
    return total


def free_bytes() -> float:
    """Returns how much memory this process may still take; infinity where nothing tells."""
    limits = [math.inf]
    limit, info = (pathlib.Path(name) for name in _MEMORY_FILES)
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        limits.append(int(text))
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        limits.append(1024 * int(lines["MemAvailable"].split()[0]))
    return min(limits)


def check_memory(model: Pretrainer, batch_size: int, size: int, large_stem: bool) -> None:
    """Refuses a run whose steps do not fit into the memory that is free.

    Args:
        model: the model that is trained.
        batch_size: images per step on one replica.
        size: height and width of a view, in pixels.
        large_stem: whether `--stem=imagenet`, which takes a fraction, could still be chosen.

    Raises:
        UserError: naming the flags that make it fit.
    """
    needed, free = step_bytes(model, batch_size, size), free_bytes()
    if needed <= free:
        return
    share, ways = free / needed, []
    if large_stem:
        fitting = int(batch_size * share * _STEM_SAVES * 0.9)
        ways = ["--stem=imagenet" + (f" --batch_size={fitting}" if fitting < batch_size else "")]
    if fitting := int(batch_size * share * 0.9):
        ways.append(f"--batch_size={fitting}")
    ways.append(f"--image_size={max(4, int(size * math.sqrt(share) * 0.9))}")
    raise UserError(
        f"A step of {batch_size} images of {size}x{size} takes about {needed / 1e9:.1f} GB, and "
        f"{free / 1e9:.1f} GB are free; allowed: {' or '.join(ways)}, or a smaller --width."
    )
