"""Tables align and pictures are not blank."""

import numpy as np
from matplotlib import image

from tfcq.reporting.plots import plot_accuracy
from tfcq.reporting.tables import percent, table


def test_table_is_aligned_markdown():
    assert table(("bits", "fp"), [("a", "81.0"), ("bcdef", "9.5")]) == (
        "| bits  |   fp |\n|-------|-----:|\n| a     | 81.0 |\n| bcdef |  9.5 |"
    )
    assert percent(0.8149) == "81.5"


def test_picture_shows_every_series(tmp_path):
    file = tmp_path / "a" / "accuracy.png"
    plot_accuracy(file, ["fp", "4w4a"], {"one": [0.9, 0.8], "two": [0.7, 0.2]})
    colours = np.unique(image.imread(file).reshape(-1, 4), axis=0)
    assert len(colours) > 50
    assert [path.name for path in file.parent.iterdir()] == ["accuracy.png"]
