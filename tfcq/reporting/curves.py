"""Figures over epochs as pictures: training curves, and learning curves of evaluations."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.reporting.picture import COLOURS, DASHES, legend_below, new_figure, png

_PANELS_PER_ROW = 3
# In the order drawn.
TITLES = {
    "loss": "loss",
    "feature_std_ratio": "spread of features (1: over the sphere)",
    "cosine_float_quantized": "cosine of float and quantized",
    "learning_rate": "learning rate",
    "images_per_second": "images per second",
    "weight_bits": "mean drawn weight bits",
    "activation_bits": "mean drawn activation bits",
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure of one run over epochs.

    Args:
        series: what the run belongs to; its curves share a colour and a name.
        epochs: the epochs.
        values: the figure at each epoch; NaN where there is none.
    """

    series: str
    epochs: Sequence[float]
    values: Sequence[float]


def draw_curves(
    panels: Mapping[str, Sequence[Curve]], ylabel: str = "", order: Sequence[str] = ()
) -> bytes:
    """Returns a picture with a panel for each figure and a line for each run, as PNG.

    Args:
        panels: heading to curves.
        ylabel: what the vertical axes show, where the headings do not say it.
        order: series in the order of their colours, where other pictures share them.

    Raises:
        UserError: when matplotlib is missing.
    """
    present = dict.fromkeys(curve.series for curves in panels.values() for curve in curves)
    series = list(order or present)
    columns = min(_PANELS_PER_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(max(6, 3.6 * columns), 2.8 * rows + 0.5)
    named: dict[str, Any] = {}
    for index, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for curve in curves:
            number = series.index(curve.series)
            # One point alone would be no line.
            marker = "o" if len(curve.epochs) < 2 else None
            (line,) = axes.plot(
                curve.epochs,
                curve.values,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                linewidth=1.2,
                alpha=0.8,
                marker=marker,
            )
            named.setdefault(curve.series, line)
        axes.set_title(TITLES.get(title, title), fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel(ylabel)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
    if len(named) > 1:
        legend_below(figure, named, columns)
    return png(figure)
