"""Test images with what was found in them: a row an image, a column a bit-width."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfcq.data.boxed.annotations import mask_coder
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.detection.average_precision import Detections, Truth
from tfcq.files import whole_file
from tfcq.reporting.picture import COLOURS, new_figure, png

_SHOWN = 0.5


def draw_found(
    file: pathlib.Path,
    split: BoxedSplit,
    truths: Sequence[Truth],
    found: Mapping[str, Sequence[Detections]],
    names: Sequence[str],
) -> pathlib.Path:
    """Draws the first images with their boxes, and with what was found at each bit-width.

    Args:
        file: where it is written, as PNG.
        split: the images.
        truths: their boxes.
        found: by bit-width, what was found in each of the first images.
        names: names of the classes.

    Returns:
        The file.
    """
    count = min(len(next(iter(found.values()))), split.size)
    records = split.records.take(count).map(split.decode).as_numpy_iterator()
    images = [record["image"] for record in records]
    figure = new_figure(3 * (len(found) + 1), 3.1 * count)
    grid = figure.subplots(count, len(found) + 1, squeeze=False)
    for row, (image, truth) in enumerate(zip(images, truths, strict=False)):
        sure = Detections(truth.boxes, np.ones(len(truth.boxes)), truth.classes, truth.masks)
        columns = {"boxes": sure, **{bits: several[row] for bits, several in found.items()}}
        for axes, (title, one) in zip(grid[row], columns.items(), strict=True):
            axes.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray")
            # A box beyond its image makes it no smaller.
            axes.autoscale(False)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title if one is sure else f"{title}, score > {_SHOWN}")
            for box, number, score, mask in _sure(one):
                colour = COLOURS[int(number) % len(COLOURS)]
                y1, x1, y2, x2 = box
                axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1.2)
                text = names[int(number)] + ("" if title == "boxes" else f" {score:.2f}")
                axes.text(
                    x1, y1, text, color="white", fontsize=8, va="bottom",
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
                )  # fmt: skip
                if mask is not None:
                    _draw_outline(axes, mask, colour)
    with whole_file(file) as temporary:
        temporary.write_bytes(png(figure))
    return file


def _sure(found: Detections) -> Iterator[tuple[Any, ...]]:
    """Yields box, class, score and mask, if it has one, of what is found surely enough."""
    none: list[Any] = [None] * len(found.boxes)
    columns = found.boxes, found.classes, found.scores, found.masks or none
    for one in zip(*columns, strict=True):
        if one[2] > _SHOWN:
            yield one


def _draw_outline(axes: Any, mask: dict[str, Any], colour: str) -> None:
    # A mask that fills its image ends there.
    inside = np.pad(mask_coder().decode(mask), 1)
    if inside.any():
        height, width = np.array(inside.shape) - 1
        extent = (-1, width - 1, -1, height - 1)
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=0.8, extent=extent)
