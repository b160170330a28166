"""Images for evaluation: an array where they fit, else a stream that decodes them when read."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfcq.data.plain_images import labelled_batches
from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.split import Split
from tfcq.errors import UserError

_DECODED_TOGETHER = 256
_LABELS_TOGETHER = 4096


class ImageStream:
    """The images of a split at one size, decoded anew each time they are read.

    Read like an array: it has a length and a shape, yields one image after the other, and
    `stream[:count]` is the stream of the first images.

    Args:
        split: the images.
        image_size: height and width that they are resized and cut to, in pixels.
        test_crop: as for `labelled_batches`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, split: Split, image_size: int, test_crop: float | None = None) -> None:
        self._split = split
        self._size = image_size
        self._crop = test_crop
        self.shape = (split.size, image_size, image_size, split.image_shape[2])

    def __len__(self) -> int:
        return self._split.size

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches(_DECODED_TOGETHER):
            yield from batch

    def __getitem__(self, chosen: slice) -> "ImageStream":
        if not isinstance(chosen, slice) or chosen.start or chosen.step not in (None, 1):
            raise TypeError(f"A stream of images was asked for [{chosen}]; allowed: [:count].")
        count = len(range(*chosen.indices(len(self))))
        return self if count == len(self) else self._of(self._split.first(count))

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Yields images in order, float32 [batch, height, width, channels] in [0, 1].

        Args:
            batch_size: images per batch; the last may be smaller.
        """
        batches = iter(labelled_batches(self._split, self._size, batch_size, self._crop))
        while True:
            with user_errors_of_pipelines():
                found = next(batches, None)
            if found is None:
                return
            yield found[0].numpy()

    def picked(self, indices: np.ndarray) -> "ImageStream":
        """Returns the stream of chosen images.

        Args:
            indices: their places, int [count], ascending, each once.
        """
        return self._of(self._split.subset(indices.tolist()))

    def _of(self, split: Split) -> "ImageStream":
        return ImageStream(split, self._size, self._crop)


Images = np.ndarray | ImageStream


def image_batches(images: Images, batch_size: int) -> Iterator[np.ndarray]:
    """Yields images in order, float [batch, height, width, channels].

    Args:
        images: array [count, height, width, channels], or a stream.
        batch_size: images per batch; the last may be smaller.
    """
    if isinstance(images, ImageStream):
        yield from images.batches(batch_size)
        return
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def picked(images: Images, indices: np.ndarray) -> Images:
    """Returns chosen images, of the kind that they came in.

    Args:
        images: array [count, height, width, channels], or a stream.
        indices: their places, int [count], ascending, each once.
    """
    return images.picked(indices) if isinstance(images, ImageStream) else images[indices]


def as_array(images: Images) -> np.ndarray:
    """Returns images as an array [count, height, width, channels].

    Args:
        images: such an array, or a stream.
    """
    if isinstance(images, ImageStream):
        return np.concatenate(list(images.batches(_DECODED_TOGETHER)))
    return images


def labels_of(split: Split) -> np.ndarray:
    """Returns the labels of a split without decoding an image, int64 [count].

    Args:
        split: the images.

    Raises:
        UserError: when the split holds no image.
    """
    numbers = split.records.map(lambda record: record["label"], tf.data.AUTOTUNE)
    batches = list(numbers.batch(_LABELS_TOGETHER).as_numpy_iterator())
    if not batches:
        raise UserError(f"The {split.name} split holds no image; allowed: 1 and above.")
    return np.concatenate(batches).astype(np.int64)
