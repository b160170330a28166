"""Figures in one style, as PNG: the only file that imports matplotlib."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 120


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and dashes of a series, so that 28 series all differ.

    Args:
        index: number of the series, from 0.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure on white.

    Args:
        width: in inches.
        height: in inches.

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
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def legend_below(figure: "Figure", named: Mapping[str, Any], columns: int = 3) -> None:
    """Names the series of a figure under it, where no curve can be hidden.

    Args:
        figure: the figure.
        named: name of each series to what is drawn of it.
        columns: how many names stand side by side.
    """
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def png(figure: "Figure") -> bytes:
    """Returns a figure as PNG.

    Args:
        figure: the figure.
    """
    content = io.BytesIO()
    # Without the version of matplotlib, which would change the file and not the picture.
    figure.savefig(content, dpi=DOTS_PER_INCH, format="png", metadata={"Software": None})
    return content.getvalue()
