"""Class-balanced subsets of labelled images, for fine-tuning with few labels."""

import numpy as np

from tfcq.errors import UserError


def label_subset(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Returns the indices of a share of the images of every class, ascending.

    Of a class with n images, max(1, round(share * n)) are drawn; the draw of a class depends on
    the seed and the class alone, and a smaller share is a subset of a larger one.

    Args:
        labels: int [count].
        share: share of the labels, above 0 to 1.
        seed: seed of the draw, 0 and above.

    Returns:
        int64 [chosen].

    Raises:
        UserError: on a share outside its range, or no label.
    """
    if not 0 < share <= 1:
        raise UserError(f"Label share {share} cannot be used; allowed: above 0 to 1, such as 0.1.")
    if len(labels) == 0:
        raise UserError("A subset of 0 labels was asked for; allowed: 1 and above.")
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(members)
        chosen.append(order[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
