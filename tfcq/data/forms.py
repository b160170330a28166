"""The forms in which people have images: arrays, `tf.data` sets, batched or not, with labels."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError

# So far beyond 0 to 1 floats may lie, as resized images do.
_OVERSHOOT = 0.1
_LOOKED_AT = 64
_MOST_BYTES = 4 * 10**9
FORMS = (
    "images [height, width, 1 or 3], or batches of them, as an array or tf.data set, alone, as "
    '(image, label) or as {"image": ...}'
)


def as_dataset(data: Any, receiver: str) -> tf.data.Dataset:
    """Returns arrays as a `tf.data` set of what they hold one after the other; such a set as it is.

    Args:
        data: arrays or tensors [count, ...], alone or in tuples and dictionaries, or a data set.
        receiver: who received it, for messages.

    Raises:
        UserError: it is neither.
    """
    if isinstance(data, tf.data.Dataset):
        return data
    if data is None or isinstance(data, (str, bytes)):
        raise UserError(
            f"{receiver} received {data!r}; allowed: {FORMS}. Of files, "
            "keras.utils.image_dataset_from_directory makes a data set."
        )
    try:
        return tf.data.Dataset.from_tensor_slices(data)
    except (ValueError, TypeError, AttributeError, NotImplementedError, tf.errors.OpError):
        kind = type(data).__name__
        shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
        known = shape is not None and dtype is not None
        held = f" of {dtype} and shape {tuple(shape or ())}" if known else ""
        raise UserError(f"{receiver} received a {kind}{held}; allowed: {FORMS}.") from None


def image_places(dataset: tf.data.Dataset) -> list[int]:
    """Returns which of an element's tensors, in the order of `tf.nest.flatten`, are images.

    Images have 1 or 3 channels at the end or, where nothing has, none and are grey. What is called
    "image" alone is one, whatever else there is, such as a mask.

    Args:
        dataset: the data set.
    """
    spec = dataset.element_spec
    if isinstance(spec, dict) and "image" in spec:
        return [sorted(spec).index("image")]
    if isinstance(spec, tuple) and spec and isinstance(spec[0], dict) and "image" in spec[0]:
        return [sorted(spec[0]).index("image")]
    shapes = {
        place: one.shape
        for place, one in enumerate(tf.nest.flatten(spec))
        if isinstance(one, tf.TensorSpec) and one.shape.rank in (2, 3, 4)
    }
    coloured = [p for p, shape in shapes.items() if shape.rank > 2 and shape[-1] in (1, 3)]
    grey = [[p for p, shape in shapes.items() if _is_grey(shape, rank)] for rank in (3, 2)]
    return coloured or grey[0] or grey[1]


def _is_grey(shape: tf.TensorShape, rank: int) -> bool:
    """Whether tensors of a rank lack the axis of channels, rather than have it elsewhere."""
    channels_first = rank == 3 and shape[0] in (1, 3)
    return shape.rank == rank and not channels_first and (shape[-1] or 0) > 4


def described(dataset: tf.data.Dataset) -> str:
    """Returns what the elements of a data set are, in words.

    Args:
        dataset: the data set.
    """

    def words(spec: Any) -> str:
        if isinstance(spec, tf.TensorSpec):
            return f"{spec.dtype.name} {'of any shape' if spec.shape.rank is None else spec.shape}"
        return type(spec).__name__

    named = tf.nest.map_structure(words, dataset.element_spec)
    return str(named).replace("'", "")


def single_images(data: Any, receiver: str) -> tuple[tf.data.Dataset, int, int | None]:
    """Returns images one by one, how many there are, and how many were in a batch.

    uint8 are pixels, as are other integers from 0 to 255; floats lie in 0 to 1. Those of
    `keras.utils.image_dataset_from_directory`, floats in 0 to 255, are divided by 255.

    Args:
        data: see `FORMS`.
        receiver: who received it, for messages.

    Returns:
        Data set of [height, width, channels], uint8 or float32 in [0, 1]; its length; images in
        the first batch, None where there were none.

    Raises:
        UserError: it holds no image or several, no known and finite number, or values that are
            neither pixels nor in 0 to 1.
    """
    dataset = as_dataset(data, receiver)
    images, size, in_batch = _single(dataset, receiver)
    # Keras alone notes the files of its data set, whose floats are pixels.
    usable = _Values(images.element_spec.dtype, hasattr(dataset, "file_paths"), receiver)
    if images.element_spec.dtype != tf.uint8:
        looked_at = list(images.take(_LOOKED_AT).as_numpy_iterator())
        usable.check(np.min([i.min() for i in looked_at]), np.max([i.max() for i in looked_at]))
    return images.map(usable, tf.data.AUTOTUNE), size, in_batch


def _single(dataset: tf.data.Dataset, receiver: str) -> tuple[tf.data.Dataset, int, int | None]:
    """Returns what `single_images` does, with values as they are."""
    places = image_places(dataset)
    if len(places) != 1:
        raise UserError(
            f"{receiver} received elements {described(dataset)}, of which {len(places)} are "
            f"images; allowed: {FORMS}. A map() leaves one of several."
        )
    images = with_channels(dataset, places).map(lambda image: image)
    size = _length(dataset, images, receiver)
    if size < 1:
        raise UserError(f"{receiver} received 0 images; allowed: 1 and above.")
    if images.element_spec.shape.rank == 3:
        return images, size, None
    return images.unbatch(), size, int(next(iter(images)).shape[0])


def with_channels(dataset: tf.data.Dataset, places: list[int]) -> tf.data.Dataset:
    """Returns the tuples of an element's images, grey ones with an axis of channels.

    Args:
        dataset: the data set.
        places: see `image_places`.
    """

    def chosen(*element: Any) -> tuple[tf.Tensor, ...]:
        tensors = tf.nest.flatten(element)
        images = [tensors[place] for place in places]
        return tuple(i if i.shape[-1] in (1, 3) else i[..., tf.newaxis] for i in images)

    return dataset.map(chosen, tf.data.AUTOTUNE)


def _length(dataset: tf.data.Dataset, images: tf.data.Dataset, receiver: str) -> int:
    """Returns the number of single images, if need be by counting them."""
    if hasattr(dataset, "file_paths"):
        return len(dataset.file_paths)
    count, shape = int(images.cardinality()), images.element_spec.shape
    if count == tf.data.INFINITE_CARDINALITY:
        raise UserError(f"{receiver} received an endless data set; allowed: without repeat().")
    if count < 0:
        raise UserError(
            f"{receiver} received a data set of unknown length; allowed: one of known length, to "
            "which tf.data.experimental.assert_cardinality(count) was applied."
        )
    if shape.rank == 3:
        return count
    if shape[0] is not None:
        return count * shape[0]
    return int(images.reduce(np.int64(0), lambda n, batch: n + tf.shape(batch, tf.int64)[0]))


class _Values:
    """Makes uint8 pixels, or floats in 0 to 1, of an image's values, and refuses others."""

    def __init__(self, dtype: tf.DType, pixels: bool, receiver: str) -> None:
        if not (dtype.is_floating or dtype.is_integer):
            raise UserError(
                f"{receiver} received images of {dtype.name}; allowed: uint8 or floats."
            )
        self._dtype, self._pixels, self._receiver = dtype, pixels, receiver
        self._scale = 255.0 if pixels else 1.0
        margin = _OVERSHOOT * self._scale if dtype.is_floating else 0
        top = self._scale if dtype.is_floating else 255
        self._low, self._high = -margin, top + margin

    def check(self, low: np.ndarray, high: np.ndarray) -> np.bool_:
        """Refuses an image by its least and greatest value.

        Raises:
            UserError: they are no pixels, or floats not in 0 to 1.
        """
        if self._low <= low and high <= self._high:
            return np.bool_(True)
        if self._dtype.is_floating and not self._pixels:
            allowed = "floats from 0 to 1, such as images / 255, or uint8 pixels"
        else:
            allowed = "pixels from 0 to 255"
        raise UserError(
            f"{self._receiver} received {self._dtype.name} images with values from {low:.4g} to "
            f"{high:.4g}; allowed: {allowed}."
        )

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        """Returns an image as uint8, or as float32 in 0 to 1.

        Args:
            image: the image.
        """
        if self._dtype == tf.uint8:
            return image
        low, high = tf.reduce_min(image), tf.reduce_max(image)
        fits = (low >= tf.cast(self._low, low.dtype)) & (high <= tf.cast(self._high, high.dtype))
        checked = tf.cond(
            fits,
            lambda: tf.constant(True),
            lambda: tf.numpy_function(self.check, [low, high], tf.bool),
        )
        with tf.control_dependencies([checked]):
            if self._dtype.is_integer:
                return tf.cast(image, tf.uint8)
            return tf.clip_by_value(tf.cast(image, tf.float32) / self._scale, 0.0, 1.0)


def held_images(data: Any, receiver: str) -> np.ndarray | tf.Tensor:
    """Returns images as one array, values as they are; an array or tensor as it is.

    Args:
        data: see `FORMS`; or a list of images.
        receiver: who received it, for messages.

    Raises:
        UserError: it holds no image or several, no known and finite number, images of different
            sizes, or more than 4 GB of them.
    """
    if isinstance(data, (np.ndarray, tf.Tensor)):
        return data
    images, size, _ = _single(as_dataset(data, receiver), receiver)
    kept, taken = [], 0
    for image in images.as_numpy_iterator():
        kept.append(image)
        taken += image.nbytes
        if taken > _MOST_BYTES or image.shape != kept[0].shape:
            raise UserError(
                f"{receiver} received {size} images, of which {len(kept)} take "
                f"{taken / 1e9:.1f} GB with shapes such as {kept[0].shape} and {image.shape}; "
                "allowed: one shape, and 4 GB, such as the first of dataset.take(count)."
            )
    return np.stack(kept)
