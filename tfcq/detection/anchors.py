"""Anchors: the boxes that a feature map's cells propose before anything is learned."""

import math
from collections.abc import Sequence

import tensorflow as tf


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> tf.Tensor:
    """Returns the anchors of a cell, centred on (0, 0).

    Args:
        sizes: square roots of their areas, in pixels.
        ratios: height over width.

    Returns:
        float32 [sizes * ratios, 4], the ratios of a size behind each other.
    """
    shapes = [(size * math.sqrt(r), size / math.sqrt(r)) for size in sizes for r in ratios]
    return tf.constant([(-h / 2, -w / 2, h / 2, w / 2) for h, w in shapes], tf.float32)


def anchors(
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    stride: int,
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> tf.Tensor:
    """Returns the anchors of every cell of a feature map.

    As in detectron2 with its offset of 0, those of the first cell are centred on the corner of the
    image, not on the middle of the cell.

    Args:
        height: cells of the map, downwards; a number or a scalar tensor.
        width: cells of the map, to the right.
        stride: pixels of the image between two cells.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: height over width.

    Returns:
        float32 [height * width * sizes * ratios, 4], in pixels of the image: row by row, cell by
        cell, the anchors of a cell behind each other.
    """
    rows = tf.range(height, dtype=tf.float32) * stride
    columns = tf.range(width, dtype=tf.float32) * stride
    y, x = tf.meshgrid(rows, columns, indexing="ij")
    centres = tf.reshape(tf.stack([y, x, y, x], axis=-1), [-1, 1, 4])
    return tf.reshape(centres + cell_anchors(sizes, ratios), [-1, 4])
