"""A picture of the views that the first step of a run sees."""

import numpy as np
import pytest
from PIL import Image

from tfcq import train
from tfcq.data.augmentation import augmentation_from
from tfcq.data.sources import open_source
from tfcq.data.views import view_batches
from tfcq.errors import UserError
from tfcq.pretraining.preview import draw_preview
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat

GAP, TIMES, SIZE = 4, 12, 8
SIDE = SIZE * TIMES + GAP


def cell(picture, row, column):
    """Returns what was drawn of one view, at its own size."""
    top, left = row * SIDE + GAP, column * SIDE + GAP
    return picture[top : top + SIDE - GAP : TIMES, left : left + SIDE - GAP : TIMES]


def test_rows_are_images_and_columns_the_views_of_the_first_step(tmp_path):
    config = config_from_flat({"train_images": 20, "batch_size": 16, "seed": 3})
    text = draw_preview(config, tmp_path / "preview.png")
    assert text.endswith("8 images of 8x8; columns: plain, view 1, view 2")
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    assert picture.shape == (8 * SIDE + GAP, 3 * SIDE + GAP, 3)
    split = open_source("digits").split("train").first(20)
    augmentation = augmentation_from(config.views, SIZE, 1)
    # What training asks for: its own batch, without the plain images.
    first = next(view_batches(split, augmentation, SIZE, 16, 3).as_numpy_iterator())
    for column, views in enumerate(first, 1):
        for row in range(8):
            drawn = cell(picture, row, column)[..., :1]
            np.testing.assert_allclose(drawn / 255, views[row], atol=0.51 / 255)


@pytest.mark.parametrize(
    ("values", "shape"),
    [({"recipe": "cq_quant"}, (8, 1)), ({"batch_size": 3}, (3, 3)), ({"train_images": 2}, (2, 3))],
)
def test_there_are_no_more_rows_and_columns_than_images_and_views(values, shape, tmp_path):
    values = {"train_images": 20, "batch_size": 16} | values
    draw_preview(config_from_flat(values), tmp_path / "preview.png")
    rows, columns = shape
    width, height = Image.open(tmp_path / "preview.png").size
    assert (height, width) == (rows * SIDE + GAP, columns * SIDE + GAP)


def test_a_preview_replaces_a_preview_and_nothing_else(tmp_path):
    file, config = tmp_path / "preview.png", config_from_flat({"train_images": 8})
    draw_preview(config, file)
    before = file.read_bytes()
    draw_preview(config_from_flat({"train_images": 8, "seed": 1}), file)
    assert file.read_bytes() != before
    for content in (lambda: file.write_text("a"), lambda: Image.new("L", (3, 3)).save(file)):
        content()
        kept = file.read_bytes()
        with pytest.raises(UserError, match="preview.png exists and is no preview"):
            draw_preview(config, file)
        assert file.read_bytes() == kept


def test_command_draws_here_or_into_the_folder_that_a_run_then_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    of = lambda *given: train.main(train.flag_set().parse(["--preview", *given]))  # noqa: E731
    small = ("--train_images=8", "--dataset=digits")
    of(*small)
    assert [file.name for file in tmp_path.iterdir()] == ["preview.png"]
    of(*small, "--run_dir=run", "--seed=9")
    assert "Preview: run/preview.png" in capsys.readouterr().out
    config = config_from_flat({"train_images": 8, "crop_area": "0.9-1"})
    folder = RunFolder("run")
    folder.begin(config)
    (tmp_path / "run" / "preview.png").unlink()
    # Alone, it shows the run that is there.
    of("--run_dir=run")
    draw_preview(config, tmp_path / "other.png")
    assert folder.preview.read_bytes() == (tmp_path / "other.png").read_bytes()
    with pytest.raises(UserError, match="run with other settings"):
        of(*small, "--run_dir=run", "--seed=9")
