"""The passes of one step: which views a batch holds, and every pass of a network once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.generator import GENERATOR
from tfcq.settings.recipes import Pass, Recipe


def make_passes(
    project: Callable[[tf.Tensor, Precision | RecordRanges | None], tf.Tensor],
    passes: tuple[Pass, ...],
    views: dict[int, tf.Tensor],
    bits: dict[str, tf.Tensor],
    rounding_seed: tf.Tensor,
) -> dict[Pass, tf.Tensor]:
    """Returns the embeddings of every pass of one network.

    Float passes record the activation ranges of the quantized ones (SSQL, Sec. 3.2); where there
    is none, each tensor is quantized over its own range (Contrastive Quant, Eq. 9).

    Args:
        project: the network, from images and a precision to embeddings.
        passes: the passes, float ones first.
        views: float tensor [batch, height, width, channels] of each view.
        bits: int32 tensor of shape (2,), weight and activation bits, of each drawn precision.
        rounding_seed: int32 tensor of shape (2,), for stochastic rounding.
    """
    quantized = any(not one.is_float for one in passes)
    ranges = "recorded" if any(one.is_float for one in passes) else "tensor"
    drawn = {name: Precision(pair[0], pair[1], ranges, shared={}) for name, pair in bits.items()}
    embeddings = {}
    for index, one in enumerate(passes):
        recording = RecordRanges(reset=index == 0) if quantized else None
        seed = tf.random.experimental.stateless_fold_in(rounding_seed, index, alg=GENERATOR)
        precision: Precision | RecordRanges | None = recording
        if not one.is_float:
            precision = dataclasses.replace(drawn[one.precision], seed=seed)
        embeddings[one] = project(views[one.view], precision)
    return embeddings


def views_of_batch(recipe: Recipe, data: Any) -> dict[int, tf.Tensor]:
    """Returns the views of a batch by their number.

    Args:
        recipe: the recipe, which says how many there are.
        data: what `fit` received.

    Raises:
        UserError: when the data are not the recipe's views, of the same shape.
    """
    if isinstance(data, tf.Tensor) and len(data.shape) == 5:
        # As several workers share them out, see `tfcq.training.workers.shared_out`.
        data = tf.unstack(data, axis=1)
    # Labels beside views are not used.
    tensors = [tensor for tensor in tf.nest.flatten(data) if len(tensor.shape) == 4]
    names = ", ".join(f"view {view}" if view else "image" for view in recipe.views)
    if len(tensors) != len(recipe.views):
        raise UserError(
            f"fit() received batches with {len(tensors)} tensors of images; allowed for recipe "
            f"{recipe.name!r}: ({names}). tfcq.two_views(images, views={recipe.views}) makes them."
        )
    shapes = {str(view.shape) for view in tensors}
    if len(shapes) > 1:
        raise UserError(f"Views differ in shape: {' and '.join(sorted(shapes))}.")
    return dict(zip(recipe.views, tensors, strict=True))
