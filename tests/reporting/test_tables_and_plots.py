"""Tables align; pictures of accuracy show every share and its spread."""

import numpy as np
import pytest
from matplotlib import image

from tfcq.reporting.picture import line_style
from tfcq.reporting.plots import draw_accuracy, plot_accuracy
from tfcq.reporting.tables import percent, table


def test_table_is_aligned_markdown():
    assert table(("bits", "fp"), [("a", "81.0"), ("bcdef", "9.5")]) == (
        "| bits  |   fp |\n|-------|-----:|\n| a     | 81.0 |\n| bcdef |  9.5 |"
    )


def test_percent_is_rounded():
    assert [percent(share) for share in (0.8149, 0.81451, 1, 0.0004)] == [
        "81.5", "81.5", "100.0", "0.0",
    ]  # fmt: skip


def test_picture_shows_every_series(tmp_path):
    file = tmp_path / "a" / "accuracy.png"
    plot_accuracy(file, ["fp", "4w4a"], {"one": [0.9, 0.8], "two": [0.7, 0.2]})
    colours = np.unique(image.imread(file).reshape(-1, 4), axis=0)
    assert len(colours) > 50
    assert [path.name for path in file.parent.iterdir()] == ["accuracy.png"]


def test_picture_has_percents_with_their_spread_in_the_colours_of_the_order(figures):
    shares = {"one": [0.9, 0.8], "two": [0.7, 0.2]}
    spreads = {"one": [0.01, 0.02], "two": [0.03, 0.04]}
    draw_accuracy(["fp", "4w4a"], shares, spreads, "title", ["x", "two", "one"])
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fp", "4w4a"]
    assert axes.get_title() == "title"
    for (name, values), bars, number in zip(shares.items(), axes.containers, (2, 1), strict=True):
        line, _, (segments,) = bars
        assert [round(x) for x in line.get_xdata()] == [0, 1]
        assert line.get_ydata() == pytest.approx([100 * value for value in values])
        assert line.get_color() == line_style(number)["color"]
        for segment, mean, spread in zip(
            segments.get_segments(), values, spreads[name], strict=True
        ):
            assert segment[:, 1] == pytest.approx([100 * (mean - spread), 100 * (mean + spread)])
