"""Range and outliers of every layer's weights, and their histograms (SSQL, Figs. 5 and 8)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfcq.reporting.picture import COLOURS, new_figure, png

OUTLIER_DEVIATIONS = 3
# Share of a normal distribution beyond three standard deviations.
NORMAL_OUTLIERS = 0.0027
_BINS = 60
_MOST_LAYERS = 4


@dataclasses.dataclass(frozen=True)
class WeightFigures:
    """How a layer's weights are distributed.

    Args:
        count: number of weights.
        low: least weight.
        high: greatest weight.
        deviation: standard deviation.
        outliers: share beyond three standard deviations from the mean.
    """

    count: int
    low: float
    high: float
    deviation: float
    outliers: float

    @property
    def range(self) -> float:
        """Greatest weight minus least."""
        return self.high - self.low

    @property
    def range_in_deviations(self) -> float:
        """Range in standard deviations: the larger, the coarser a grid over the whole range."""
        return self.range / self.deviation if self.deviation else 0.0


def weight_figures(weights: np.ndarray) -> WeightFigures:
    """Returns range and outliers of a kernel.

    Args:
        weights: float array of any shape.
    """
    flat = np.asarray(weights, np.float64).ravel()
    deviation = float(flat.std())
    beyond = np.abs(flat - flat.mean()) > OUTLIER_DEVIATIONS * deviation
    return WeightFigures(
        flat.size, float(flat.min()), float(flat.max()), deviation, float(beyond.mean())
    )


def shown_layers(kernels: Sequence[dict[str, np.ndarray]]) -> list[str]:
    """Returns up to four layers, spread over the depth, that all networks have.

    Args:
        kernels: layer to kernel of each network.
    """
    common = [name for name in kernels[0] if all(name in other for other in kernels)]
    if len(common) <= _MOST_LAYERS:
        return common
    places = np.linspace(0, len(common) - 1, _MOST_LAYERS).round().astype(int)
    return [common[place] for place in places]


def draw_histograms(
    networks: dict[str, dict[str, np.ndarray]], layers: Sequence[str], order: Sequence[str] = ()
) -> bytes:
    """Returns weight histograms, a row for each network and a column for each layer, as PNG.

    A layer has the same axis in every row, with its least and greatest weight marked.

    Args:
        networks: name of a network to layer to kernel.
        layers: the layers drawn.
        order: names in the order of their colours, where other pictures share them.

    Raises:
        UserError: when matplotlib is missing.
    """
    order = order or list(networks)
    figure = new_figure(2.7 * len(layers) + 0.6, 1.9 * len(networks) + 0.5)
    axes = figure.subplots(len(networks), len(layers), squeeze=False, sharex="col")
    for column, layer in enumerate(layers):
        flat = {name: kernels[layer].ravel() for name, kernels in networks.items()}
        reach = max(float(np.abs(values).max()) for values in flat.values()) or 1.0
        edges = np.linspace(-reach, reach, _BINS + 1)
        for row, (name, values) in enumerate(flat.items()):
            panel, colour = axes[row, column], COLOURS[order.index(name) % len(COLOURS)]
            # A logarithmic count, or else single outliers could not be seen.
            panel.hist(values, bins=edges, color=colour, log=True)
            panel.set_ylim(bottom=0.7)
            for edge in (values.min(), values.max()):
                panel.axvline(edge, color="0.3", linestyle=":", linewidth=1)
            panel.tick_params(labelsize=7)
            panel.xaxis.get_major_locator().set_params(nbins=5)
            if row == 0:
                panel.set_title(layer, fontsize=8)
            if column == 0:
                panel.set_ylabel(_wrapped(name), fontsize=8)
    figure.supxlabel("weight", fontsize=9)
    figure.supylabel("number of weights (logarithmic)", fontsize=9)
    return png(figure)


def _wrapped(name: str, width: int = 18) -> str:
    """Returns a name in lines, since it stands upright beside a low panel."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
