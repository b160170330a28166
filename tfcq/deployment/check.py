"""Whether one way of computing features gives what another gives, and how long it takes."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np

from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How close features come to reference features.

    Args:
        agreement: share of images for which a classifier's highest score is the same, 0 to 1.
        cosine_mean: mean over images of the cosine between the two feature vectors.
        cosine_min: the lowest of these cosines.
        relative_l2: l2 norm of all differences over the l2 norm of the reference.
        largest_error: largest absolute difference of a feature.
    """

    agreement: float
    cosine_mean: float
    cosine_min: float
    relative_l2: float
    largest_error: float


def compare(
    features: np.ndarray, reference: np.ndarray, scores: Callable[[np.ndarray], np.ndarray]
) -> Comparison:
    """Returns how close features come to reference features of the same images.

    Args:
        features: float [count, width].
        reference: float [count, width].
        scores: a classifier, features to scores of classes, float [count, classes].

    Raises:
        UserError: when shapes differ or there is no image.
    """
    if features.shape != reference.shape or len(features) == 0:
        raise UserError(
            f"Received features of shapes {features.shape} and {reference.shape}; allowed: equal "
            "shapes, 1 image and above."
        )
    same = scores(features).argmax(axis=1) == scores(reference).argmax(axis=1)
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    cosines = _cosines(features, reference)
    error = features - reference
    # Against an all-zero reference any error is infinitely large, and none is none.
    norm, size = np.linalg.norm(error), np.linalg.norm(reference)
    relative = norm / size if size > 0 else (np.inf if norm > 0 else 0.0)
    return Comparison(
        agreement=float(np.mean(same)),
        cosine_mean=float(np.mean(cosines)),
        cosine_min=float(np.min(cosines)),
        relative_l2=float(relative),
        largest_error=float(np.max(np.abs(error))),
    )


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each pair of rows: 0 beside a zero vector, 1 between two of them."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~np.any(a, axis=1) & ~np.any(b, axis=1)
    cosines = np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1)
    return np.where(both_zero, 1.0, cosines)


def median_seconds(
    calls: Mapping[str, Callable[[], object]], repeats: int = 200, warm_up: int = 20
) -> dict[str, float]:
    """Returns the median duration of each call, in seconds.

    Calls take turns, so that whatever else the machine does slows all of them alike.

    Args:
        calls: what to measure, by name.
        repeats: measured calls of each.
        warm_up: calls of each before that.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warm_up + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken[warm_up:])) for name, taken in seconds.items()}
