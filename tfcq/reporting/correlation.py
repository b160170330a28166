"""How quantization and contrastive errors correlate over training, as a picture (SSQL, Fig. 11)."""

import math
import statistics
from collections.abc import Sequence

from tfcq.reporting.curves import Curve
from tfcq.reporting.picture import COLOURS, legend_below, new_figure, png

_BINS = 40


def draw_correlation(curves: Sequence[Curve], order: Sequence[str] = ()) -> bytes:
    """Returns the curve of a correlation and the histogram of its values, as PNG.

    Args:
        curves: the correlation, -1 to 1, of each run over epochs.
        order: series in the order of their colours, where other pictures share them.

    Raises:
        UserError: when matplotlib is missing.
    """
    series = list(dict.fromkeys(curve.series for curve in curves))
    figure = new_figure(8, 3.4)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    # Wide enough that small correlations look small.
    reach = max([0.2, *(abs(v) for c in curves for v in c.values if not math.isnan(v))]) * 1.05
    named = {}
    for name in series:
        colour = COLOURS[list(order or series).index(name) % len(COLOURS)]
        values = []
        for curve in curves:
            if curve.series == name:
                (named[name],) = left.plot(curve.epochs, curve.values, color=colour, linewidth=1.2)
                values += [value for value in curve.values if not math.isnan(value)]
        right.hist(values, bins=_BINS, range=(-reach, reach), color=colour, alpha=0.6)
    left.axhline(0, color="0.4", linewidth=0.8)
    right.axvline(0, color="0.4", linewidth=0.8)
    left.set_ylim(-reach, reach)
    right.set_xlim(-reach, reach)
    left.set_xlabel("epoch")
    left.set_ylabel("correlation")
    right.set_xlabel("correlation")
    right.set_ylabel("epochs")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if len(named) > 1:
        legend_below(figure, named)
    return png(figure)


def draw_errors(pairs: Sequence[tuple[Curve, Curve]], order: Sequence[str] = ()) -> bytes:
    """Returns two errors over epochs, and one over the other, as PNG.

    Args:
        pairs: quantization error and contrastive error of each run.
        order: series in the order of their colours, where other pictures share them.

    Raises:
        UserError: when matplotlib is missing.
    """
    series = list(order or dict.fromkeys(first.series for first, _ in pairs))
    figure = new_figure(10, 3.4)
    panels = [figure.add_subplot(1, 3, place + 1) for place in range(3)]
    named = {}
    for quantization, contrastive in pairs:
        colour = COLOURS[series.index(quantization.series) % len(COLOURS)]
        for axes, curve in zip(panels, (quantization, contrastive), strict=False):
            (named[curve.series],) = axes.plot(curve.epochs, curve.values, color=colour)
        panels[2].plot(quantization.values, contrastive.values, ".", color=colour, alpha=0.7)
    for axes, title in zip(panels, ("quantization error", "contrastive error"), strict=False):
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
    panels[2].set_xlabel("quantization error")
    panels[2].set_ylabel("contrastive error")
    for axes in panels:
        axes.grid(alpha=0.3)
    if len(named) > 1:
        legend_below(figure, named)
    return png(figure)


def correlation(first: Sequence[float], other: Sequence[float]) -> float:
    """Returns Pearson's correlation of two columns, NaN where one of them is constant.

    Args:
        first: values; pairs with a NaN are left out.
        other: as many values.
    """
    pairs = [
        (a, b) for a, b in zip(first, other, strict=True) if not math.isnan(a) and not math.isnan(b)
    ]
    if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return math.nan
    return statistics.correlation(*zip(*pairs, strict=True))
