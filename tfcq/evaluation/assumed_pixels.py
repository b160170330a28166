"""Whether a classifier of which nothing tells its pixels takes those that are assumed."""

from collections.abc import Callable

import numpy as np

from tfcq.data.image_stream import Images, as_array
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import accuracy_of
from tfcq.settings.backbones import INPUT_RANGES, UNIT_RANGE
from tfcq.settings.bitwidths import FLOAT

# Test images that tell which pixels a classifier takes.
_TRIED = 500


def check_assumed_range(
    title: str, images: Images, labels: np.ndarray, logits: Callable[[np.ndarray, str], np.ndarray]
) -> None:
    """Refuses to assume pixels from 0 to 1 where a classifier is clearly better in others.

    Args:
        title: what the classifier is called.
        images: float [count, height, width, channels] in [0, 1], or a stream.
        labels: int [count].
        logits: gives the classifier's logits, float [count, classes], of pixels, and takes the name
            of their range beside them.

    Raises:
        UserError: naming the better pixels.
    """
    tried = as_array(images[:_TRIED])
    known = labels[: len(tried)]

    def top1(name: str) -> float:
        low, high = INPUT_RANGES[name]
        try:
            scores = logits(tried * np.float32(high - low) + low, name)
        except UserError:
            # Of pixels that it does not take, such as a logarithm of negative ones.
            return 0.0
        return accuracy_of(scores, known, FLOAT).top1 if np.all(np.isfinite(scores)) else 0.0

    found = {name: top1(name) for name in INPUT_RANGES}
    best = max(found, key=lambda name: found[name])
    if found[best] - found[UNIT_RANGE] > max(0.1, 2 / np.sqrt(len(tried))):
        raise UserError(
            f"Nothing in {title} tells which pixels it takes: in {UNIT_RANGE} its top-1 is "
            f"{found[UNIT_RANGE]:.1%} of {len(tried)} images, in {best} {found[best]:.1%}; pass "
            f"--input_range={best} (or --input_range={UNIT_RANGE})."
        )
