"""Accuracy over bit-widths as a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.files import whole_file
from tfcq.reporting.picture import legend_below, line_style, new_figure, png

_LABELS = {"bits": "bit-width (weights, activations)", "kernels": "kernels"}


def draw_accuracy(
    bits: Sequence[str],
    series: Mapping[str, Sequence[float]],
    spreads: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
    order: Sequence[str] = (),
    heading: str = "bits",
    ylabel: str = "top-1 accuracy (%)",
) -> bytes:
    """Returns a picture of accuracy over bit-widths, one line per series, as PNG.

    Args:
        bits: bit-widths, in the order drawn.
        series: name to accuracies from 0 to 1, one per bit-width; NaN where there is none.
        spreads: name to half-lengths of error bars, 0 to 1; NaN where there is none.
        title: heading of the picture.
        order: names in the order of their colours, where other pictures share them.
        heading: what `bits` are: `bits`, or `kernels` of a TFLite file.
        ylabel: which accuracy it is.

    Raises:
        UserError: when matplotlib is missing.
    """
    order = order or list(series)
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    named = {}
    for index, (name, shares) in enumerate(series.items()):
        percents = [100 * share for share in shares]
        bars = [100 * spread for spread in spreads[name]] if spreads else None
        # Error bars of neighbouring series would cover each other.
        offset = 0.06 * (index - (len(series) - 1) / 2)
        places = [place + offset for place in range(len(bits))]
        named[name] = axes.errorbar(
            places, percents, yerr=bars, capsize=3, **line_style(order.index(name))
        )
    axes.set_xticks(range(len(bits)), bits)
    axes.set_xlabel(_LABELS[heading])
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if axes.get_ylim()[0] < 0:
        _from_nought(axes)
    if len(series) > 1:
        legend_below(figure, named)
    return png(figure)


def draw_panels(
    bits: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], ylabel: str
) -> bytes:
    """Returns a picture of figures over bit-widths, a panel for each kind of them, as PNG.

    Args:
        bits: bit-widths, in the order drawn.
        panels: title to series, of the same names in each; a series has a figure in percent for
            each bit-width, NaN where there is none.
        ylabel: what the figures are.

    Raises:
        UserError: when matplotlib is missing.
    """
    figure = new_figure(max(5, 4 * len(panels)), 4)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    named: dict[str, Any] = {}
    places = range(len(bits))
    for axes, (title, series) in zip(grid, panels.items(), strict=True):
        for index, (name, percents) in enumerate(series.items()):
            (named[name],) = axes.plot(places, percents, clip_on=False, **line_style(index))
        axes.set_xticks(places, bits)
        axes.set_xlim(-0.5, len(bits) - 0.5)
        axes.set_xlabel(_LABELS["bits"])
        axes.set_title(title)
        axes.grid(alpha=0.3)
    _from_nought(grid[0])
    grid[0].set_ylabel(ylabel)
    legend_below(figure, named)
    return png(figure)


def _from_nought(axes: Any) -> None:
    # Of nothing but noughts a whole point.
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))


def plot_accuracy(
    path: str | pathlib.Path,
    bits: Sequence[str],
    series: Mapping[str, Sequence[float]],
    spreads: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
    heading: str = "bits",
) -> None:
    """Writes a picture of top-1 accuracy over bit-widths, one line per series.

    Args:
        path: the PNG file.
        bits: bit-widths, in the order drawn.
        series: name to accuracies from 0 to 1, one per bit-width.
        spreads: name to half-lengths of error bars, 0 to 1.
        title: heading of the picture.
        heading: as for `draw_accuracy`.

    Raises:
        UserError: when matplotlib is missing.
    """
    content = draw_accuracy(bits, series, spreads, title, heading=heading)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
