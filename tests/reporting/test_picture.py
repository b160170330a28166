"""Curves, correlation and t-SNE show their figures, and what cannot be drawn is told."""

import math

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.reporting.correlation import draw_correlation
from tfcq.reporting.curves import Curve, draw_curves
from tfcq.reporting.embedding import Embedding, draw_embeddings, tsne
from tfcq.reporting.picture import COLOURS, line_style


def lines_of(axes):
    """Returns x, y and colour of every line but those that mark zero."""
    lines = [(*map(list, line.get_data()), line.get_color()) for line in axes.lines]
    return [line for line in lines if line[2] != "0.4"]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_many_series_all_look_different():
    styles = [tuple(line_style(number).values()) for number in range(28)]
    assert len(set(styles)) == 28


def test_curves_are_drawn_over_their_epochs_in_the_colours_of_the_order(figures):
    one, other, short = (
        Curve("b", [1, 2], [0.3, 0.2]), Curve("a", [2, 4], [0.5, 0.4]), Curve("b", [7], [4.0]),
    )  # fmt: skip
    draw_curves({"loss": [one, other], "weight_bits": [short]}, "share", ["a", "b"])
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == ["loss", "mean drawn weight bits"]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("epoch", "share")
    ] * 2
    assert lines_of(figure.axes[0]) == [
        ([1, 2], [0.3, 0.2], COLOURS[1]), ([2, 4], [0.5, 0.4], COLOURS[0]),
    ]  # fmt: skip
    assert lines_of(figure.axes[1]) == [([7], [4.0], COLOURS[1])]
    assert legend_of(figure) == ["b", "a"]


def test_correlation_is_drawn_over_epochs_and_counted_over_all_runs_of_a_series(figures):
    curves = [
        Curve("a", [1, 2], [0.1, -0.1]), Curve("b", [1, 2], [0.5, 0.5]), Curve("a", [3], [0.3]),
        Curve("b", [1, 2], [math.nan, 0.4]),
    ]  # fmt: skip
    draw_correlation(curves, ["x", "a", "b"])
    left, right = figures[0].axes
    assert lines_of(left)[:3] == [
        ([1, 2], [0.1, -0.1], COLOURS[1]), ([3], [0.3], COLOURS[1]),
        ([1, 2], [0.5, 0.5], COLOURS[2]),
    ]  # fmt: skip
    counts = [sum(bar.get_height() for bar in bars) for bars in right.containers]
    assert counts == [3, 3]
    (places,) = ([bar.get_x() for bar in bars if bar.get_height()] for bars in right.containers[:1])
    assert np.round(places, 1).tolist() == [-0.1, 0.1, 0.3]
    assert legend_of(figures[0]) == ["a", "b"]


def test_tsne_repeats_itself_and_keeps_far_clusters_apart():
    features = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")
    features[15:] += 50
    points = tsne(features)
    np.testing.assert_array_equal(points, tsne(features))
    centres = points[:15].mean(0), points[15:].mean(0)
    widest = max(np.linalg.norm(p - c, axis=1).mean() for p, c in zip(
        (points[:15], points[15:]), centres, strict=True))  # fmt: skip
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * widest


def test_collapsed_features_start_by_their_seed_and_too_few_images_are_refused():
    collapsed = np.ones((6, 3), "float32")
    one, other = tsne(collapsed, 1), tsne(collapsed, 2)
    assert np.isfinite(one).all() and np.abs(one - other).max() > 0
    with pytest.raises(UserError, match="received 4 images; allowed: 5 and above"):
        tsne(np.ones((4, 3)))


@pytest.mark.parametrize("classes", [3, 15, 40])
def test_embeddings_show_every_point_in_the_colour_of_its_class(figures, classes):
    random = np.random.default_rng(0)
    names, bits = tuple(f"class {number}" for number in range(classes)), ("fp", "2w4a")
    rows = [
        Embedding(
            name,
            {b: random.normal(size=(80, 2)) for b in bits},
            random.permutation(np.arange(80) % classes),
            names,
            "digits",
        )
        for name in ("one", "two")
    ]
    draw_embeddings(rows)
    (figure,) = figures
    panels = iter(figure.axes)
    for number, row in enumerate(rows):
        for b in bits:
            axes = next(panels)
            points = axes.collections[0]
            np.testing.assert_array_equal(points.get_offsets(), row.points[b])
            np.testing.assert_array_equal(points.get_array(), row.labels)
            assert axes.get_title() == (b if number == 0 else "")
            assert axes.get_ylabel() == (row.name if b == "fp" else "")
    colours = [points.cmap(points.norm(place)) for place in range(classes)]
    assert len(set(colours)) == classes
    if classes > 20:
        assert not figure.legends
        return
    assert legend_of(figure) == list(names)
    shown = [tuple(dot.get_facecolor()[0]) for dot in figure.legends[0].legend_handles]
    assert shown == colours
