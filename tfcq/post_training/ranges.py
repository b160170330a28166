"""Activation ranges from what was observed: every method by its name."""

import dataclasses
from collections.abc import Callable

import numpy as np

from tfcq.post_training.histogram import Histogram

Range = tuple[float, float]

MOVING_AVERAGE_MOMENTUM = 0.9
PERCENTILE = 99.99
# Candidate clippings at each end, and how often the search zooms in on the best.
_CANDIDATES = 17
_ZOOMS = 4
_SHRINKINGS = 100


@dataclasses.dataclass
class Observation:
    """What one activation quantizer was shown.

    Args:
        histogram: all values.
        batch_minima: the smallest value of each batch, in order.
        batch_maxima: the largest value of each batch, in order.
    """

    histogram: Histogram
    batch_minima: list[float] = dataclasses.field(default_factory=list)
    batch_maxima: list[float] = dataclasses.field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """Takes in a batch.

        Args:
            values: float array of any shape, finite and not empty.
        """
        self.batch_minima.append(float(values.min()))
        self.batch_maxima.append(float(values.max()))
        self.histogram.add(values)

    @property
    def ends(self) -> Range:
        """The smallest and the largest value of all batches."""
        return min(self.batch_minima), max(self.batch_maxima)


def minmax_range(observation: Observation, bits: int) -> Range:
    """Returns the smallest and the largest value seen.

    Args:
        observation: what was seen.
        bits: not used.
    """
    return observation.ends


def moving_average_range(observation: Observation, bits: int) -> Range:
    """Returns moving averages of the batches' ends (Jacob et al. 2018, Sec. 3.1).

        end <- 0.9 end + 0.1 end of the batch,    starting from the first batch

    The paper smooths over thousands of training steps, with a factor close to 1; calibration has
    some batches only.

    Args:
        observation: what was seen.
        bits: not used.
    """

    def smoothed(ends: list[float]) -> float:
        average = ends[0]
        for end in ends[1:]:
            average += (1 - MOVING_AVERAGE_MOMENTUM) * (end - average)
        return average

    return smoothed(observation.batch_minima), smoothed(observation.batch_maxima)


def percentile_range(observation: Observation, bits: int) -> Range:
    """Returns the percentiles 0.01 and 99.99 of all values (Wu et al. 2020, "percentile").

    Each of the two tails loses one value in 10000. Within a bin values are taken as evenly spread.

    Args:
        observation: what was seen.
        bits: not used.
    """
    histogram = observation.histogram
    low, high = observation.ends
    cumulative = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    edges = (histogram.first + np.arange(len(cumulative))) * histogram.width
    # The outer bins reach beyond the values.
    edges = np.clip(edges, low, high)
    shares = np.array([100 - PERCENTILE, PERCENTILE]) / 100
    ends = np.interp(shares * cumulative[-1], cumulative, edges)
    return float(ends[0]), float(ends[1])


def squared_error(
    values: np.ndarray, counts: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int
) -> np.ndarray:
    """Returns the summed squared error of values rounded over ranges (`ops.asymmetric_scale`).

    Args:
        values: float [N], what is rounded.
        counts: float [N], how often each value counts.
        low: float [R], lower ends, each below its upper end.
        high: float [R], upper ends.
        bits: bits of the levels.

    Returns:
        float64 [R].
    """
    rounded = _levels(values, low, high, bits) * _scale(low, high, bits)[:, None]
    return np.square(rounded - values) @ counts


def _scale(low: np.ndarray, high: np.ndarray, bits: int) -> np.ndarray:
    return (high - low) / (2**bits - 1)


def _levels(values: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int) -> np.ndarray:
    """Returns level - zero point of each value over each range, float64 [R, N]."""
    scale = _scale(low, high, bits)[:, None]
    zero_point = -np.round(low[:, None] / scale)
    return np.clip(np.round(values / scale) + zero_point, 0, 2**bits - 1) - zero_point


def mse_range(observation: Observation, bits: int) -> Range:
    """Returns the range with the least squared error of rounding.

        min over low, high of    sum over values v of (v - round to range(v))^2

    (Nagel et al. 2021, "A White Paper on Neural Network Quantization", Sec. 3.1; Banner et al.
    2019.)
    Both ends are searched on a grid between zero and the values' own, which zooms in on the best;
    an end beyond which zero lies stays. Each bin of the histogram stands as the mean of its values.
    The whole range is a candidate, so the result is never worse on the histogram.

    Args:
        observation: what was seen.
        bits: bits of the activations.
    """
    whole = observation.ends
    if whole[0] == whole[1]:
        return whole
    values, counts = observation.histogram.representatives()
    # Fractions of the ends; an end that cannot shrink towards zero has one candidate, itself.
    spans = [(0.0, 1.0) if whole[0] < 0 else (1.0, 1.0), (0.0, 1.0) if whole[1] > 0 else (1.0, 1.0)]
    best, least = whole, squared_error(values, counts, *_columns([whole]), bits)[0]
    for _ in range(_ZOOMS):
        grids = [np.linspace(*span, _CANDIDATES) if span[0] < span[1] else [1.0] for span in spans]
        fractions = [(a, b) for a in grids[0] for b in grids[1]]
        ranges = [(whole[0] * a, whole[1] * b) for a, b in fractions]
        kept = [index for index, (low, high) in enumerate(ranges) if low < high]
        errors = squared_error(values, counts, *_columns([ranges[index] for index in kept]), bits)
        winner = kept[int(np.argmin(errors))]
        if errors.min() < least:
            best, least = ranges[winner], errors.min()
        spans = [
            (max(0.0, f - (s[1] - s[0]) / 8), min(1.0, f + (s[1] - s[0]) / 8)) if s[0] < s[1] else s
            for f, s in zip(fractions[winner], spans, strict=True)
        ]
    return best


def _columns(ranges: list[Range]) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.asarray(ranges, np.float64).T
    return low, high


def entropy_range(observation: Observation, bits: int) -> Range:
    """Returns the range whose levels tell most about the histogram (Migacz 2017, TensorRT).

        min over ranges of  KL(P || Q) = sum of P log(P / Q)

    P is the histogram within the range, what lies beyond it added to the outer bins. Q is the
    histogram within the range as the levels see it: what falls on one level, spread evenly over
    that level's bins. Empty bins count in neither. The bin that starts at zero, which holds what a
    ReLU cut off and which every range represents, counts as its neighbour above, as in NVIDIA's
    pytorch-quantization. Ranges shrink both ends towards zero by one
    factor, in 100 steps down to as many bins as there are levels.

    Args:
        observation: what was seen.
        bits: bits of the activations.
    """
    whole = observation.ends
    values, counts = observation.histogram.representatives()
    if len(values) <= 2**bits:
        return whole
    zero = np.flatnonzero((values >= 0) & (values < observation.histogram.width))
    counts[zero] = counts[np.minimum(zero + 1, len(counts) - 1)]
    best, least = whole, np.inf
    for factor in np.linspace(1, 2**bits / len(values), _SHRINKINGS):
        low = whole[0] * factor if whole[0] < 0 else whole[0]
        high = whole[1] * factor if whole[1] > 0 else whole[1]
        inside = np.flatnonzero((values >= low) & (values <= high))
        if len(inside) < 2 or low >= high:
            continue
        divergence = _divergence(values, counts, inside, (low, high), bits)
        if divergence < least:
            best, least = (low, high), divergence
    return best


def _divergence(
    values: np.ndarray, counts: np.ndarray, inside: np.ndarray, ends: Range, bits: int
) -> float:
    within = counts[inside]
    seen = within.copy()
    seen[0] += counts[: inside[0]].sum()
    seen[-1] += counts[inside[-1] + 1 :].sum()
    level = _levels(values[inside], *_columns([ends]), bits)[0]
    _, group = np.unique(level, return_inverse=True)
    spread = (np.bincount(group, within) / np.bincount(group))[group]
    p, q = seen / seen.sum(), spread / spread.sum()
    return float(np.sum(p * np.log(p / q)))


RANGES: dict[str, Callable[[Observation, int], Range]] = {
    "minmax": minmax_range,
    "moving_average": moving_average_range,
    "percentile": percentile_range,
    "mse": mse_range,
    "entropy": entropy_range,
}
