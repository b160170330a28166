"""A part of a data set whose images have boxes, and the protocol of what gives such parts."""

import dataclasses
from typing import Protocol

from tfcq.data.split import Split


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
