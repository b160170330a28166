"""What a network reads of many images, of which no more is kept than its ranges need."""

import numpy as np
import tensorflow as tf

from tfcq.settings.generator import GENERATOR

# Regions of all images together, which set the ranges of a head.
REGIONS = 512
# Tiles of each level of a feature pyramid, and cells a side of them.
TILES, _SIDE = 256, 16


class Thinned:
    """Rows of arrays, of which so many are kept, each as likely as any other.

    Those with the greatest draws stay, which are addressed by (place, array, row).

    Args:
        most: rows that are kept; None for all.
        place: another place draws others.
    """

    def __init__(self, most: int | None, place: int = 0) -> None:
        self._most, self._place, self._arrays = most, place, 0
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, rows: np.ndarray) -> None:
        """Adds an array, and leaves out what is too many.

        Args:
            rows: [count, ...], of the same shape as others but for the count.
        """
        seed = [self._place, self._arrays]
        draws = tf.random.stateless_uniform([len(rows)], seed, alg=GENERATOR).numpy()
        self._arrays += 1
        self._kept.append(self._chosen(rows, draws))
        if self._most is not None:
            self._kept = [self._chosen(*self._joined())]

    def rows(self) -> np.ndarray:
        """Returns what is kept, in the order in which it was added."""
        return self._joined()[0]

    def _chosen(self, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.sort(np.argsort(-draws, kind="stable")[: self._most])
        return rows[places], draws[places]

    def _joined(self) -> tuple[np.ndarray, np.ndarray]:
        rows, draws = zip(*self._kept, strict=True)
        return np.concatenate(rows), np.concatenate(draws)


def tiles(maps: np.ndarray) -> np.ndarray:
    """Returns maps cut into tiles of 16 cells a side, filled up with zeros as images are.

    Args:
        maps: float [count, height, width, channels].

    Returns:
        float [tiles, 16, 16, channels].
    """
    count, height, width, channels = maps.shape
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)
    filled = np.zeros((count, rows * _SIDE, columns * _SIDE, channels), maps.dtype)
    filled[:, :height, :width] = maps
    parts = filled.reshape(count, rows, _SIDE, columns, _SIDE, channels)
    return parts.swapaxes(2, 3).reshape(-1, _SIDE, _SIDE, channels)
