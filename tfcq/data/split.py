"""A part of a data set in a fixed order, and the protocol of what gives such parts."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import tensorflow as tf

from tfcq.errors import UserError

Record = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a data set, in a fixed order.

    Attributes:
        name: `"train"` or `"test"`.
        size: number of images.
        image_shape: height, width, channels; height and width are None where they vary.
        class_names: names in the order of the labels, or None where there are no labels.
        records: yields `{"index": int64 [], "image": ..., "label": int64 []}` in a fixed order,
            where index counts from 0, label is -1 without labels, and image is whatever is cheap
            to hold before decoding: uint8 [H, W, C] or a string [] of encoded bytes; it may be
            missing, where `decode` finds it by index.
        decode: turns a record into the same dict with image uint8 [H, W, C], or of a user's own
            floats float32 in [0, 1].
        record_bytes: about how much memory an undecoded record takes, in bytes.
        names: what tells each image from others however many there are, such as its file; None
            for its place.
        keeping: returns a `decode` that also takes batches of records, of images of one shape, and
            keeps in memory what it has decoded; None where there is none.
    """

    name: str
    size: int
    image_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...] | None
    records: tf.data.Dataset
    decode: Callable[[Record], Record]
    record_bytes: int
    names: tuple[str, ...] | None = None
    keeping: Callable[[], Callable[[Record], Record]] | None = None

    def first(self, count: int) -> Self:
        """Returns the split made of the first `count` images.

        Raises:
            UserError: the split has fewer images, or `count` is not positive.
        """
        if not 1 <= count <= self.size:
            raise UserError(
                f"{count} images of the {self.name} split were asked for;"
                f" allowed: 1 to {self.size}."
            )
        names = self.names and self.names[:count]
        return dataclasses.replace(self, size=count, records=self.records.take(count), names=names)

    def subset(self, indices: Sequence[int]) -> Self:
        """Returns the split made of chosen images, in their old order and with their old indices.

        Args:
            indices: places of the images, each once.

        Raises:
            UserError: there is none, one stands twice, or one is not among the images.
        """
        chosen = set(indices)
        if not indices or len(chosen) < len(indices) or not chosen <= set(range(self.size)):
            raise UserError(
                f"{len(indices)} indices cannot be a subset; allowed: different ones from 0 to "
                f"{self.size - 1}."
            )
        kept = tf.constant([index in chosen for index in range(self.size)])
        # By place: images that are a subset already have other indices. What follows the last one
        # need not be read.
        placed = self.records.enumerate().filter(lambda place, record: kept[place])
        records = placed.map(lambda place, record: record).take(len(indices))
        records = records.apply(tf.data.experimental.assert_cardinality(len(indices)))
        names = self.names and tuple(self.names[place] for place in sorted(chosen))
        return dataclasses.replace(self, size=len(indices), records=records, names=names)


def view_size(split: Split, image_size: int | None) -> int:
    """Returns the height and width of a view: the size asked for, or the images' own.

    Args:
        split: the images.
        image_size: height and width in pixels; None for the images' own.

    Raises:
        UserError: no size is asked for and the images have no common square size.
    """
    if image_size is not None:
        return image_size
    height, width, _ = split.image_shape
    if height is None or height != width:
        raise UserError(
            f"Images have shape {split.image_shape}; allowed without --image_size: one square "
            "size. Set --image_size (image_size= in Python), for example to 224."
        )
    return height


class Source(Protocol):
    """A data set that can be opened split by split."""

    name: str

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""

    def split(self, name: str) -> Split:
        """Returns the split `"train"` or `"test"`.

        Raises:
            UserError: this source has no such split.
        """


def missing_split(source: str, name: str, allowed: tuple[str, ...]) -> UserError:
    """Returns the error for a split that a source does not have."""
    return UserError(f"Data set {source!r} has no split {name!r}; allowed: {', '.join(allowed)}.")
