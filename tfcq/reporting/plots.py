"""Pictures of results, as PNG."""

import pathlib
from collections.abc import Sequence

from tfcq.errors import UserError
from tfcq.files import whole_file


def plot_accuracy(
    path: str | pathlib.Path,
    bits: Sequence[str],
    series: dict[str, Sequence[float]],
    spreads: dict[str, Sequence[float]] | None = None,
    title: str = "",
) -> None:
    """Draws top-1 accuracy over bit-widths, one line per series.

    Args:
        path: the PNG file.
        bits: bit-widths, in the order drawn.
        series: name to accuracies from 0 to 1, one per bit-width.
        spreads: name to half-lengths of error bars, 0 to 1.
        title: heading of the picture.

    Raises:
        UserError: when matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "Pictures need matplotlib; install it with: pip install matplotlib"
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, shares in series.items():
        percents = [100 * share for share in shares]
        bars = [100 * spread for spread in spreads[name]] if spreads else None
        axes.errorbar(bits, percents, yerr=bars, marker="o", capsize=3, label=name)
    axes.set_xlabel("bit-width (weights, activations)")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
