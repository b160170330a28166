"""Pictures of features at several bit-widths by t-SNE (SSQL, Fig. 4; Contrastive Quant, Fig. 2)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfcq.errors import UserError
from tfcq.reporting.picture import legend_below, new_figure, png

PERPLEXITY = 30
FEWEST_IMAGES = 5
# More classes than colours that can be told apart are drawn along a colour scale.
_NAMED_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Points of one network.

    Args:
        name: name of the network.
        points: bit-width to points, float [count, 2].
        labels: int [count], class of each point.
        class_names: name of each class.
        dataset: the images that the points are of.
    """

    name: str
    points: dict[str, np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    dataset: str


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns a point in the plane for each row of features, float [count, 2].

    Args:
        features: float [count, width], at least 5 rows.
        seed: seed of the embedding.

    Raises:
        UserError: when scikit-learn is missing, or there are fewer rows.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # a requirement of scikit-learn
    except ImportError:
        raise UserError(
            "t-SNE needs scikit-learn; install it with: pip install scikit-learn"
        ) from None
    if len(features) < FEWEST_IMAGES:
        raise UserError(
            f"t-SNE received {len(features)} images; allowed: {FEWEST_IMAGES} and above, such as "
            "1000."
        )
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    # Rows that are all alike, as of collapsed features, have no principal axis to start from.
    start = "pca" if np.ptp(features, axis=0).any() and features.shape[1] > 1 else "random"
    # One thread: sums in one order, and no threads that wait for each other on a busy machine.
    with threadpool_limits(1):
        return TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(features)


def draw_embeddings(embeddings: Sequence[Embedding]) -> bytes:
    """Returns a picture with a row for each network and a column for each bit-width, as PNG.

    Args:
        embeddings: networks on images of the same classes, at the same bit-widths.

    Raises:
        UserError: when matplotlib is missing.
    """
    class_names, bits = embeddings[0].class_names, list(embeddings[0].points)
    named = len(class_names) <= _NAMED_CLASSES
    scale = "tab10" if len(class_names) <= 10 else "tab20" if named else "hsv"
    last = {"tab10": 9, "tab20": 19}.get(scale, len(class_names) - 1)
    width = max(2.9 * len(bits), 5)
    figure = new_figure(width, 2.9 * len(embeddings) + (0.7 if named else 0.3))
    panels = figure.subplots(len(embeddings), len(bits), squeeze=False)
    dots = {}
    for row, embedding in enumerate(embeddings):
        for column, bit_width in enumerate(bits):
            axes = panels[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(bit_width, fontsize=10)
            if column == 0:
                axes.set_ylabel(embedding.name, fontsize=9)
            style = {"cmap": scale, "vmin": 0, "vmax": last, "linewidths": 0}
            drawn = axes.scatter(*embedding.points[bit_width].T, c=embedding.labels, s=8, **style)
        for place in np.unique(embedding.labels).tolist():
            colour = drawn.cmap(drawn.norm(place))
            dots[place] = axes.scatter([], [], s=25, color=colour)
    if named:
        names = {class_names[place]: dots[place] for place in sorted(dots)}
        legend_below(figure, names, columns=10 if width > 7 else 5)
    return png(figure)
