"""A float detector at any bit-width: each of its networks quantized on what it reads."""

from collections.abc import Callable, Iterable

import numpy as np

from tfcq.detection.detector import Batch, Detector
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.settings.bitwidths import BitWidth

# Regions that set the ranges of a head, of all images together.
_REGIONS = 512
# Cells a side of the tiles in which a network reads maps of several sizes.
_TILE = 16
_MAPS = 256


def post_training(
    detector: Detector, batches: Iterable[Batch], plan: Plan
) -> Callable[[BitWidth], Detector]:
    """Returns what gives the detector at a bit-width, after the steps of a plan.

    Args:
        detector: the float detector, of which nothing but ranges is changed.
        batches: images for calibration, from `tfcq.data.boxed.box_batches.plain_batches`.
        plan: the steps.

    Raises:
        UserError: when a step cannot be taken on one of the networks.
    """
    read = detector.inputs_of_parts(batches)
    prepared = {
        name: PostTraining(part, calibration_inputs(read[name]), plan)
        for name, part in detector.parts.items()
    }

    def at(bits: BitWidth) -> Detector:
        return detector.with_parts({name: one.at(bits).model for name, one in prepared.items()})

    return at


def calibration_inputs(read: list[np.ndarray]) -> np.ndarray:
    """Returns what a network read as one array, of which many maps or regions are thinned out.

    Maps of several sizes, levels of a feature pyramid, are cut into tiles of 16 cells a side,
    filled up with zeros as images are.

    Args:
        read: each float [count, height, width, channels].
    """
    if len({one.shape[1:] for one in read}) > 1:
        read = [_tiles(one) for one in read]
        # As many of each level, whose ranges all count.
        levels = [one[_evenly(len(one), _MAPS)] for one in read]
        return np.concatenate(levels)
    return thinned(read)


def thinned(read: list[np.ndarray]) -> np.ndarray:
    """Returns maps of one size as one array, of which many regions are thinned out.

    Args:
        read: each float [count, height, width, channels].
    """
    whole = np.concatenate(read)
    return whole[_evenly(len(whole), max(_REGIONS, len(read[0])))]


def _evenly(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _tiles(maps: np.ndarray) -> np.ndarray:
    count, height, width, channels = maps.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    filled = np.zeros((count, rows * _TILE, columns * _TILE, channels), maps.dtype)
    filled[:, :height, :width] = maps
    parts = filled.reshape(count, rows, _TILE, columns, _TILE, channels)
    return parts.swapaxes(2, 3).reshape(-1, _TILE, _TILE, channels)
