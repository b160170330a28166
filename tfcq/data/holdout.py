"""A test split for a source without one: a share of every class of its training images."""

import dataclasses

import numpy as np

from tfcq.data.image_stream import labels_of
from tfcq.data.ranking import ranks
from tfcq.data.split import Source, Split, missing_split
from tfcq.errors import UserError
from tfcq.settings.datasets import check_holdout


class HoldoutSource:
    """A source whose test split is a share of the training images, which are then without it.

    Of a class of n images, `round(share * n)` are held out, at least one and at most all but one.
    Which ones follows from the seed and each image's own name, not from its place: where an image
    comes or goes, at most one other of its class changes sides.

    Args:
        source: gives the images.
        share: share of each class, above 0 and below 1.
        seed: another seed holds out other images.

    Raises:
        UserError: the source has a test split already, no labels, or a class of one image.
    """

    splits = ("train", "test")

    def __init__(self, source: Source, share: float, seed: int = 0) -> None:
        self.name = source.name
        check_holdout(source.name, source.splits, share)
        self._source, self._share, self._seed = source, share, seed
        self._whole: Split | None = None

    def split(self, name: str) -> Split:
        """Returns the split `"train"` or `"test"`.

        Raises:
            UserError: another name, or images that cannot be divided.
        """
        if name not in self.splits:
            raise missing_split(self.name, name, self.splits)
        if self._whole is None:
            self._whole = self._source.split("train")
            self._held_out = self._divide(self._whole)
        held_out = self._held_out if name == "test" else ~self._held_out
        return dataclasses.replace(self._whole.subset(np.flatnonzero(held_out).tolist()), name=name)

    def _divide(self, whole: Split) -> np.ndarray:
        """Returns which images are held out, bool [count]."""
        if whole.class_names is None:
            raise UserError(
                f"--holdout={self._share:g} with data set {self.name!r}, which has no labels; "
                "allowed: one with classes, such as a folder with one sub-folder per class."
            )
        labels = labels_of(whole)
        counts = np.bincount(labels, minlength=len(whole.class_names))
        if counts.min() < 2:
            rarest = whole.class_names[int(counts.argmin())]
            raise UserError(
                f"--holdout={self._share:g} with {counts.min()} image of class {rarest!r}; "
                "allowed: 2 and above of every class. Remove the class, or use more images."
            )
        rank = ranks(whole.names or tuple(map(str, range(whole.size))), self._seed)
        held_out = np.zeros(whole.size, bool)
        for label, count in enumerate(counts):
            members = np.flatnonzero(labels == label)
            chosen = min(max(1, round(self._share * count)), count - 1)
            held_out[members[np.argsort(rank[members])[:chosen]]] = True
        return held_out
