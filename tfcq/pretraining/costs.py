"""What a step of pre-training costs: operations, memory, and what replicas exchange."""

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.flops import forward_flops
from tfcq.nn.layer_bits import leaves_of
from tfcq.pretraining.moco import MoCoV2, MoCoV3
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.simclr import SimCLR
from tfcq.settings.recipes import Pass

_FLOAT_BYTES = 4
# A backward pass is two products where the forward pass is one: of the inputs and of the kernel.
_TRAINED, _FORWARD = 3, 1
# Batch norm over replicas sums values, squares and their number; the gradients of the first two
# come back (`keras.layers.BatchNormalization(synchronized=True)`).
_SUMS, _GRADIENTS = 3, 2
# Minimum and maximum.
_ENDS = 2


class Course(NamedTuple):
    """Passes of a step through the same networks.

    Args:
        networks: the networks, one behind the other.
        passes: the passes.
        trained: whether gradients flow back through them.
    """

    networks: list[keras.Model]
    passes: list[Pass]
    trained: bool


def courses(model: Pretrainer) -> list[Course]:
    """Returns the passes of a step: those that predict, those that only make targets, and those of
    the momentum network.

    Args:
        model: the model that is trained.
    """
    framework, momentum = model.framework, model.momentum_network
    encoder = [model.backbone, framework.projector]
    predictor = [] if framework.predictor is None else [framework.predictor]
    predicting = {pair.prediction for pair in model.recipe.pairs}
    trained = [one for one in model.online_passes if one in predicting]
    further = [one for one in model.online_passes if one not in predicting]
    found = [Course(encoder + predictor, trained, True), Course(encoder, further, False)]
    if momentum is not None:
        networks = [momentum.backbone, momentum.projector]
        found.append(Course(networks, list(model.target_passes), False))
    return [course for course in found if course.passes]


def pass_counts(model: Pretrainer) -> tuple[int, int]:
    """Returns the passes of a step that are trained, and those that only make targets.

    Args:
        model: the model that is trained.
    """
    counts = [0, 0]
    for course in courses(model):
        counts[not course.trained] += len(course.passes)
    return counts[0], counts[1]


def step_flops(model: Pretrainer, images: int) -> int:
    """Returns the floating-point operations of a step, of products alone, see `forward_flops`.

        images * (3 * forward of trained passes + forward of others)

    Args:
        model: the model that is trained.
        images: of a step, over all replicas.
    """
    return images * sum(
        len(course.passes)
        * (_TRAINED if course.trained else _FORWARD)
        * sum(map(forward_flops, course.networks))
        for course in courses(model)
    )


def bytes_of(variables: list[Any]) -> int:
    """Returns how many bytes variables take.

    Args:
        variables: Keras variables.
    """
    sizes = (math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in variables)
    return sum(sizes)


def all_reduce_bytes(model: Pretrainer, images: int, synchronized: bool) -> int:
    """Returns the bytes that each replica adds to sums over all of them in a step.

    Gradients of the weights; with synchronized batch norm its sums, and their gradients; and the
    gradients of embeddings that were gathered.

    Args:
        model: the model that is trained.
        images: of a step, over all replicas.
        synchronized: whether batch norm is.
    """
    values = sum(math.prod(one.shape) for one in model.trainable_variables)
    if synchronized:
        for course in courses(model):
            sums = _SUMS + _GRADIENTS * course.trained
            values += sums * len(course.passes) * sum(map(_normalized_channels, course.networks))
    if isinstance(model.framework, SimCLR):
        values += 2 * _mutual_pairs(model) * images * _width(model)
    return values * _FLOAT_BYTES


def all_gather_bytes(
    model: Pretrainer, images: int, replicas: int, synchronized: bool = False
) -> int:
    """Returns the bytes that each replica holds of what it gathers from all of them in a step.

    Embeddings that are negatives, keys of a queue, or looked at for collapse; images and
    embeddings that are shuffled; with synchronized batch norm, ranges of activations.

    Args:
        model: the model that is trained.
        images: of a step, over all replicas.
        replicas: how many there are.
        synchronized: whether batch norm is, and ranges with it.
    """
    looked_at = 1 + sum(map(len, model.figures.correlated))
    embeddings = looked_at + _gathered_by_framework(model)
    pixels = 0
    if model.shuffle_keys:
        embeddings += len(model.target_passes)
        pixels = len(model.target_passes) * math.prod(model.backbone.input_shape[1:])
    values = images * (embeddings * _width(model) + pixels)
    if synchronized:
        values += _ENDS * replicas * _ranges(model)
    return values * _FLOAT_BYTES


def _gathered_by_framework(model: Pretrainer) -> int:
    """Returns how many batches of embeddings the framework gathers."""
    pairs = len(model.recipe.pairs)
    if isinstance(model.framework, SimCLR):
        return pairs + _mutual_pairs(model)
    if isinstance(model.framework, MoCoV2):
        return len(model.target_passes)
    return pairs if isinstance(model.framework, MoCoV3) else 0


def _mutual_pairs(model: Pretrainer) -> int:
    return sum(map(model.recipe.is_mutual, model.recipe.pairs))


def _width(model: Pretrainer) -> int:
    return model.framework.projector.output_shape[-1]


def _normalized_channels(network: keras.Model) -> int:
    norms = (one for one in leaves_of(network) if isinstance(one, keras.layers.BatchNormalization))
    return sum(one.moving_mean.shape[0] for one in norms)


def _ranges(model: Pretrainer) -> int:
    """Returns how many ranges are taken: in float passes for quantized ones, or in these."""
    framework, momentum = model.framework, model.momentum_network
    parts = [([model.backbone, framework.projector], model.online_passes)]
    if momentum is not None:
        parts.append(([momentum.backbone, momentum.projector], model.target_passes))
    return sum(_ranges_of(networks, passes) for networks, passes in parts)


def _ranges_of(networks: list[keras.Model], passes: tuple[Pass, ...]) -> int:
    layers = [one for network in networks for one in leaves_of(network)]
    quantizers = [one for one in layers if isinstance(one, ActivationQuantizer)]
    recording = sum(one.is_float for one in passes)
    if recording == len(passes):
        return 0
    if not recording:
        return len(passes) * sum(one.quantizer.takes_range for one in quantizers)
    return recording * len(quantizers)
