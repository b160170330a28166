"""Curves, correlation and t-SNE are drawn, and what cannot be drawn is told."""

import io
import math

import numpy as np
import pytest
from matplotlib import image

from tfcq.errors import UserError
from tfcq.reporting.correlation import correlation, draw_correlation, draw_errors
from tfcq.reporting.curves import Curve, draw_curves
from tfcq.reporting.embedding import Embedding, draw_embeddings, tsne
from tfcq.reporting.picture import COLOURS, line_style


def has_colour(png: bytes, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return bool(np.any(np.all(np.abs(image.imread(io.BytesIO(png))[..., :3] - wanted) < 0.2, -1)))


def test_many_series_all_look_different():
    styles = [tuple(line_style(number).values()) for number in range(28)]
    assert len(set(styles)) == 28


def test_series_keeps_its_colour_where_another_is_absent():
    curves = {"loss": [Curve("b", [1, 2, 3], [0.3, 0.2, math.nan])]}
    alone, ordered = draw_curves(curves), draw_curves(curves, order=["a", "b"])
    assert has_colour(alone, COLOURS[0]) and not has_colour(alone, COLOURS[1])
    assert has_colour(ordered, COLOURS[1]) and not has_colour(ordered, COLOURS[0])


def test_correlation_is_pearsons():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, math.nan, 3], [3, 2, 9, 1]) == pytest.approx(-1)
    assert math.isnan(correlation([1, 1], [1, 2]))


def test_correlation_and_errors_are_drawn_in_each_series_colour():
    curves = [Curve(name, [1, 2, 3], [0.1, math.nan, -0.1]) for name in ("a", "b")]
    for png in (draw_correlation(curves), draw_errors([(c, c) for c in curves])):
        assert has_colour(png, COLOURS[0]) and has_colour(png, COLOURS[1])


def test_tsne_repeats_itself_and_keeps_far_clusters_apart():
    features = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")
    features[15:] += 50
    points = tsne(features)
    np.testing.assert_array_equal(points, tsne(features))
    centres = points[:15].mean(0), points[15:].mean(0)
    widest = max(np.linalg.norm(p - c, axis=1).mean() for p, c in zip(
        (points[:15], points[15:]), centres, strict=True))  # fmt: skip
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * widest


def test_collapsed_features_and_too_few_images():
    assert np.isfinite(tsne(np.ones((6, 3), "float32"))).all()
    with pytest.raises(UserError, match="received 4 images; allowed: 5 and above"):
        tsne(np.ones((4, 3)))


@pytest.mark.parametrize("classes", [3, 15, 40])
def test_embeddings_are_drawn_with_any_number_of_classes(classes):
    labels = np.arange(60) % classes
    points = np.random.default_rng(0).normal(size=(60, 2))
    names = tuple(map(str, range(classes)))
    row = Embedding("one", {"fp": points, "2w4a": points}, labels, names)
    pixels = image.imread(io.BytesIO(draw_embeddings([row, row])))
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > classes
