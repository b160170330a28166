"""A float detector at any bit-width: each of its networks quantized on what it reads."""

from collections.abc import Callable, Iterable

import numpy as np

from tfcq.detection.detector import Batch, Detector
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.settings.bitwidths import BitWidth


def post_training(
    detector: Detector, batches: Iterable[Batch], plan: Plan
) -> Callable[[BitWidth], Detector]:
    """Returns what gives the detector at a bit-width, after the steps of a plan.

    The ranges of a part are those of what `Detector.inputs_of_parts` keeps. A detector that is
    given is that of the bit-width that was asked for last.

    Args:
        detector: the float detector, of which nothing but ranges is changed.
        batches: images for calibration in batches of one shape, from `BoxedData.calibration`.
        plan: the steps.

    Raises:
        UserError: when a step cannot be taken on one of the networks.
    """
    read = detector.inputs_of_parts(batches, tiled=True)
    prepared = {
        # Of all levels, whose ranges all count.
        name: PostTraining(part, np.concatenate(read[name]), plan)
        for name, part in detector.parts.items()
    }
    made = detector

    def at(bits: BitWidth) -> Detector:
        nonlocal made
        parts = {name: one.at(bits).model for name, one in prepared.items()}
        # Networks that are the same at each bit-width are one detector, whose graph is made once.
        if any(part is not made.parts[name] for name, part in parts.items()):
            made = detector.with_parts(parts)
        return made

    return at
