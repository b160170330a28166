"""A histogram that grows with what it is shown, so that one pass over the data is enough."""

import numpy as np

# Numbers of bins are counted in int64, and values are cut into at most this many of them.
_FINEST = 2.0**-30


class Histogram:
    """Counts and sums of values in bins of equal width, a power of two.

    Bin k holds the values v with floor(v / width) = k, so zero always starts a bin. The width is
    the smallest with which the values fit into `bins` bins; where new values do not fit, it is
    doubled and bins merge in pairs. Both are exact, so the result does not depend on how the values
    came in batches.

    Args:
        bins: the largest number of bins, at least 2.

    Attributes:
        width: width of a bin; 0 before the first value.
        first: number k of the first bin.
        counts: float64 [bins in use], how many values each bin holds.
        sums: float64 [bins in use], their sum.
    """

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.width = 0.0
        self.first = 0
        self.counts = np.zeros(0)
        self.sums = np.zeros(0)

    def add(self, values: np.ndarray) -> None:
        """Counts values.

        Args:
            values: float array of any shape, finite and not empty.
        """
        values = np.asarray(values, np.float64).ravel()
        lowest, highest = values.min(), values.max()
        if not self.width:
            self.width = float(np.finfo(np.float32).tiny)
        else:
            ends = self._edges()
            lowest, highest = min(lowest, ends[0]), max(highest, ends[1])
        while not self._fits(lowest, highest):
            self._double()
        index = np.floor(values / self.width).astype(np.int64)
        self._cover(int(index.min()), int(index.max()))
        index -= self.first
        self.counts += np.bincount(index, minlength=len(self.counts))
        self.sums += np.bincount(index, values, minlength=len(self.counts))

    def representatives(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean of the values in each bin that holds any, and how many there are.

        Returns:
            Two float64 arrays of one length, the means in ascending order.
        """
        used = self.counts > 0
        return self.sums[used] / self.counts[used], self.counts[used]

    def _edges(self) -> tuple[float, float]:
        """Returns a value of the first bin in use and one of the last."""
        return self.first * self.width, (self.first + len(self.counts) - 1) * self.width

    def _fits(self, lowest: float, highest: float) -> bool:
        count = np.floor(highest / self.width) - np.floor(lowest / self.width) + 1
        return count <= self.bins and max(abs(lowest), abs(highest)) * _FINEST <= self.width

    def _double(self) -> None:
        self.width *= 2
        if len(self.counts) == 0:
            return
        # Bins 2k and 2k + 1 merge: pairs start at an even number.
        start, stop = self.first, self.first + len(self.counts)
        padding = (start % 2, stop % 2)
        self.first = start // 2
        self.counts = np.pad(self.counts, padding).reshape(-1, 2).sum(1)
        self.sums = np.pad(self.sums, padding).reshape(-1, 2).sum(1)

    def _cover(self, first: int, last: int) -> None:
        """Adds empty bins until those from `first` to `last` exist."""
        if len(self.counts) == 0:
            self.first = first
        before = max(0, self.first - first)
        after = max(0, last + 1 - self.first - len(self.counts))
        self.first -= before
        self.counts = np.pad(self.counts, (before, after))
        self.sums = np.pad(self.sums, (before, after))
