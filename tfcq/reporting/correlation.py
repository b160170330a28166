"""How quantization and contrastive errors correlate over training, as a picture (SSQL, Fig. 11)."""

import math
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
