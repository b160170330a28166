"""Test images with what was found in them: a row an image, a column a bit-width."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

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
    figure = new_figure(2.4 * (len(found) + 1), 2.5 * count)
    grid = figure.subplots(count, len(found) + 1, squeeze=False)
    for row, (image, truth) in enumerate(zip(images, truths, strict=False)):
        columns = {"boxes": (truth.boxes, truth.classes, np.ones(len(truth.boxes)))}
        for bits, several in found.items():
            one = several[row]
            shown = one.scores > _SHOWN
            columns[bits] = (one.boxes[shown], one.classes[shown], one.scores[shown])
        for axes, (title, (boxes, classes, scores)) in zip(grid[row], columns.items(), strict=True):
            axes.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
            for box, number, score in zip(boxes, classes, scores, strict=True):
                colour = COLOURS[int(number) % len(COLOURS)]
                y1, x1, y2, x2 = box
                axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1.2)
                text = names[int(number)] + ("" if title == "boxes" else f" {score:.2f}")
                axes.text(x1, y1 - 1, text, color=colour, fontsize=6, va="bottom")
    with whole_file(file) as temporary:
        temporary.write_bytes(png(figure))
    return file
