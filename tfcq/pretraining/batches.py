"""What `Pretrainer.fit` receives, as batches of the recipe's views."""

import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.forms import FORMS, as_dataset, described, image_places, with_channels
from tfcq.data.order import ORDER, epoch_numbers, fold, shuffled
from tfcq.data.user_images import USUAL_BATCH, views_of_images
from tfcq.errors import UserError
from tfcq.nn.input_range import from_unit, is_far_below
from tfcq.settings.recipes import Recipe

# Views may lie somewhat beyond 0 to 1, with noise or standardized; pixels lie farther.
_FARTHEST = 10.0


def batches_of(
    data: Any,
    labels: Any,
    recipe: Recipe,
    batch_size: int | None,
    seed: int,
    first_epoch: int,
    takes: tuple[int | None, ...],
    pixels: str,
    look: Callable[[int, float, float], None],
    epoch_steps: int | None = None,
) -> tuple[Any, int | None]:
    """Returns batches of views, those received or made of the images received.

    Args:
        data: views as the recipe has them, or single images in any form that `two_views` takes;
            of what is neither array nor `tf.data` set, such as a generator, the first batch is
            looked at and the rest left to Keras.
        labels: labels beside arrays, which are not used, or the second view.
        recipe: the recipe.
        batch_size: images per batch, of what is in no batches; None for 256, or all if fewer.
        seed: decides order and views of single images.
        first_epoch: the epoch that single images go on from.
        takes: shape of the images that the backbone takes, with None where it takes any.
        pixels: those that it takes, a name in `INPUT_RANGES`; what is made of images, and bytes,
            become such.
        look: refuses the first batch by its number of images, least and greatest value.
        epoch_steps: steps of an epoch that `fit` was given; None for all of the images'.

    Returns:
        What `keras.Model.fit` is given, and the steps of an epoch where the data do not end.

    Raises:
        UserError: when the data are neither views nor images, or not such as the backbone takes.
    """
    if not _is_known(data) and not (data is None or isinstance(data, str)):
        return _peeked_at(data, pixels, look), None
    given = data if isinstance(data, tf.data.Dataset) else _beside(data, labels)
    dataset = as_dataset(given, "fit()")
    places, views = image_places(dataset), recipe.views
    shapes = [tf.nest.flatten(dataset.element_spec)[place].shape for place in places]
    single = len(places) == 1 and (len(views) > 1 or hasattr(dataset, "file_paths"))
    if single or (len(places) == len(views) == 1 and shapes[0].rank < 4):
        made, steps = views_of_images(
            dataset, batch_size, takes[1], None, seed, first_epoch, views, "fit()", epoch_steps
        )
        made = made.map(lambda *views: tuple(from_unit(view, pixels) for view in views))
        return _looked_at(made, takes, pixels, look), steps
    if len(places) != len(views):
        names = ", ".join(f"view {view}" if view else "image" for view in views)
        raise UserError(
            f"fit() received elements {described(dataset)}, of which {len(places)} are images; "
            f"allowed for recipe {recipe.name!r}: ({names}), or, to make views of, {FORMS}."
        )
    drawn: int | None = None
    if dataset is not data:
        arrays = keras.tree.map_structure_up_to(dataset.element_spec, np.asarray, given)
        dataset, drawn = _drawn(tf.nest.flatten(arrays), batch_size, seed, first_epoch, epoch_steps)
    in_batches = with_channels(dataset, places)
    if in_batches.element_spec[0].shape.rank < 4:
        in_batches = in_batches.batch(batch_size or USUAL_BATCH)
    return _looked_at(in_batches, takes, pixels, look), drawn


def _drawn(
    arrays: list[np.ndarray],
    batch_size: int | None,
    seed: int,
    first_epoch: int,
    epoch_steps: int | None,
) -> tuple[tf.data.Dataset, int]:
    """Returns endless whole batches of arrays in an order of their own for each epoch.

    Returns:
        The batches, and how many an epoch has.
    """
    count = len(arrays[0])
    size = min(batch_size or USUAL_BATCH, count)
    steps = count // size
    named = {str(place): array for place, array in enumerate(arrays)}
    blocks = tf.data.Dataset.from_tensors({"index": np.arange(count), **named})

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        return shuffled(blocks, fold(epoch_seed, ORDER), size, range(size))

    epoch, step = divmod(first_epoch * (epoch_steps or steps), steps)
    records = epoch_numbers(epoch, None).flat_map(of_epoch).skip(step)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return records.map(lambda record: tuple(record[name] for name in named)).apply(endless), steps


def _peeked_at(data: Any, pixels: str, look: Callable[[int, float, float], None]) -> Any:
    """Returns a generator or `PyDataset` whose first batch was looked at; others as they are."""
    if isinstance(data, keras.utils.PyDataset):
        first = data[0]
    elif isinstance(data, types.GeneratorType):
        first = next(data, ())
    else:
        return data
    views = [np.asarray(view) for view in tf.nest.flatten(first)]
    views = [as_taken(view, pixels) for view in views if view.ndim == 4]
    if views:
        look(len(views[0]), min(float(v.min()) for v in views), max(float(v.max()) for v in views))
    return data if isinstance(data, keras.utils.PyDataset) else _again(first, data)


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def as_taken(view: Any, pixels: str) -> Any:
    """Returns a view as floats: bytes as the pixels that a backbone takes, floats as they are.

    Args:
        view: array or tensor.
        pixels: those that the backbone takes, a name in `INPUT_RANGES`.
    """
    if tf.as_dtype(view.dtype).is_floating:
        return view
    floats = tf.cast(view, tf.float32) if tf.is_tensor(view) else view.astype(np.float32)
    return from_unit(floats / 255, pixels)


def _is_known(data: Any) -> bool:
    """Whether data are a `tf.data` set, arrays, or a structure of arrays."""
    if isinstance(data, tf.data.Dataset):
        return True
    if isinstance(data, list) and data and isinstance(data[0], (list, int, float)):
        return True
    leaves = tf.nest.flatten(data)
    return bool(leaves) and all(isinstance(x, (np.ndarray, tf.Tensor, tf.Variable)) for x in leaves)


def _beside(data: Any, labels: Any) -> Any:
    """Returns a list of views as a tuple, since a list is stacked, as one of images is."""
    if isinstance(data, list) and all(len(np.shape(view)) == 4 for view in data):
        data = tuple(data)
    return data if labels is None else (data, labels)


def _looked_at(
    batches: tf.data.Dataset,
    takes: tuple[int | None, ...],
    pixels: str,
    look: Callable[[int, float, float], None],
) -> tf.data.Dataset:
    """Returns the batches as floats, of which the first is looked at before the first step."""
    for view in batches.element_spec:
        pairs = zip(view.shape[1:], takes[1:], strict=False)
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise UserError(
                f"fit() received views of shape {tuple(view.shape[1:])}; allowed for this "
                f"backbone: {tuple('any' if side is None else side for side in takes[1:])}."
            )

    def refuse(*views: np.ndarray) -> np.bool_:
        low, high = min(v.min() for v in views), max(v.max() for v in views)
        look(len(views[0]), float(low), float(high))
        return np.bool_(True)

    def checked(number: tf.Tensor, *views: tf.Tensor) -> tuple[tf.Tensor, ...]:
        views = tuple(as_taken(view, pixels) for view in views)
        seen = tf.cond(
            number == 0,
            lambda: tf.numpy_function(refuse, views, tf.bool),
            lambda: tf.constant(True),
        )
        with tf.control_dependencies([seen]):
            return tuple(map(tf.identity, views))

    numbered = batches.enumerate()
    return numbered.map(lambda number, views: checked(number, *views), tf.data.AUTOTUNE)


def check_batch(count: int, low: float, high: float, takes_pixels: bool, pixels: str) -> None:
    """Refuses a batch from which nothing can be learned.

    Args:
        count: number of images.
        low: least value of any view.
        high: greatest value.
        takes_pixels: whether the backbone itself makes 0 to 1 of pixels.
        pixels: those that it takes, a name in `INPUT_RANGES`.

    Raises:
        UserError: it holds one image, or views far beyond 0 to 1, or far below what it takes.
    """
    if count < 2:
        raise UserError(
            "fit() received a batch of 1 image; allowed: 2 and above, since batch norm and "
            "collapse are judged over a batch."
        )
    if (low < -_FARTHEST or high > _FARTHEST) and not takes_pixels:
        raise UserError(
            f"fit() received views with values from {low:.4g} to {high:.4g}; allowed: 0 to 1, such "
            "as views / 255."
        )
    if is_far_below(max(abs(low), abs(high)), pixels):
        raise UserError(
            f"fit() received views with values from {low:.4g} to {high:.4g}, and the first layers "
            f"of the backbone take pixels from {pixels.replace('-', ' to ')}; allowed: views * 255."
        )


def takes_pixels(model: keras.Model) -> bool:
    """Whether a model itself makes 0 to 1 of pixels, or computes what is not known with them.

    Args:
        model: the model.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return takes_pixels(layer)
        if isinstance(layer, keras.layers.Rescaling):
            return bool(np.max(np.abs(layer.scale)) < 1 / _FARTHEST)
        if isinstance(layer, keras.layers.Normalization):
            return bool(np.max(np.abs(layer.mean)) > _FARTHEST)
        if not isinstance(layer, keras.layers.Layer):
            return True
        if layer.weights:
            return False
    return False
