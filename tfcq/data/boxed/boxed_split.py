"""A part of a data set whose images have boxes, and what such a data set must have."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from absl import logging

from tfcq.data.split import Split
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxedSplit(Split):
    """One part of a data set of images with boxes, in a fixed order.

    `decode` turns a record into

        {"index": int64 [], "image": uint8 [H, W, C], "boxes": float32 [N, 4],
         "classes": int64 [N], "difficult": bool [N], "crowd": bool [N], "area": float32 [N]}

    and, of a split with masks, "masks": uint8 [N, H, W] of 0 and 1. A box is (y1, x1, y2, x2) in
    pixels of the image, as in `tfcq.detection.boxes`, and has an area. A difficult box may be
    trained on and need not be found; a crowd is around many objects and not trained on; the area
    is that of the object, not of its box.

    Attributes:
        most_boxes: the greatest number of boxes of an image that are no crowds.
        masks: whether there is a mask to each box.
        image_ids: what the data call each image, by its index; None for the index itself.
        category_ids: what they call each class, by its number; None for the number itself.
    """

    most_boxes: int
    masks: bool
    image_ids: tuple[int | str, ...] | None = None
    category_ids: tuple[int, ...] | None = None


class BoxedSource(Protocol):
    """A data set of images with boxes, which can be opened split by split."""

    name: str

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""

    def split(self, name: str) -> BoxedSplit:
        """Returns the split `"train"`, of images with boxes alone, or `"test"`, of all images.

        Raises:
            UserError: this source has no such split, or its boxes cannot be used.
        """


def with_boxes(source: str, counts: np.ndarray) -> list[int]:
    """Returns the places of images that a detector can be trained on, and tells what is left out.

    As in detectron2, an image without a box, or with crowds alone, is not trained on.

    Args:
        source: name of the data set.
        counts: boxes of each image that are no crowds, int [images].

    Raises:
        UserError: no image has a box.
    """
    places = np.flatnonzero(counts).tolist()
    if not places:
        raise UserError(
            f"None of the {len(counts)} training images of {source!r} has a box; allowed: data "
            "with boxes."
        )
    if left_out := len(counts) - len(places):
        logging.warning(
            "%s: %d of %d training images have no box and are not trained on.",
            source, left_out, len(counts),
        )  # fmt: skip
    return places


def check_seen(source: str, names: Sequence[str], train: np.ndarray, test: np.ndarray) -> None:
    """Refuses test images with boxes of a class that no training image has.

    Args:
        source: name of the data set.
        names: names of the classes.
        train: boxes of each class in the training split, int [classes].
        test: boxes of each class in the test split, int [classes].

    Raises:
        UserError: naming the first such class.
    """
    unseen = [name for name, a, b in zip(names, train, test, strict=True) if b and not a]
    if unseen:
        raise UserError(
            f"Class {unseen[0]!r} of the test split of {source!r} has no box in the training "
            f"split ({len(unseen)} such); allowed: classes that are trained on."
        )
