"""What images with boxes must have to be trained and scored on."""

from collections.abc import Sequence

import numpy as np
from absl import logging

from tfcq.data.ranking import ranks
from tfcq.errors import UserError


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


def held_out(
    classes: Sequence[np.ndarray], names: Sequence[str], share: float, seed: int
) -> np.ndarray:
    """Returns which images become the test split, bool [images].

    They are `round(share * n)` of n images, at least one, in an order of their names; fewer where
    too many have a class that no other image left to training has.

    Args:
        classes: of each image, those of its boxes, int [boxes].
        names: of the images.
        share: of them, above 0 and below 1.
        seed: another seed holds out others.

    Raises:
        UserError: when every image has a class that no other one has.
    """
    own = [np.unique(of_image) for of_image in classes]
    left = np.bincount(np.concatenate(own))
    chosen = np.zeros(len(own), bool)
    for place in np.argsort(ranks(names, seed)):
        if chosen.sum() < max(1, round(share * len(own))) and (left[own[place]] > 1).all():
            left[own[place]] -= 1
            chosen[place] = True
    if not chosen.any():
        raise UserError(
            f"--holdout={share:g} with {len(own)} images, each the only one of some class; "
            "allowed: a class in 2 images and above."
        )
    return chosen
