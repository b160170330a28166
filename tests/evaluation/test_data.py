"""The images that an evaluation works on."""

import keras
import numpy as np
import pytest

from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation import data
from tfcq.evaluation.subject import chosen_data as data_of_subject
from tfcq.pretraining.run import training_split
from tfcq.settings.evaluation_groups import EvaluationDataSettings
from tfcq.settings.training_groups import DataSettings


def test_first_images():
    images = list(range(5))
    assert data.first_images("test_images", images, None) == images
    assert data.first_images("test_images", images, 2) == [0, 1]
    assert data.first_images("calibration_images", images, None, usual=3) == [0, 1, 2]
    with pytest.raises(UserError, match="--test_images=6 with 5 images; allowed: 1 to 5"):
        data.first_images("test_images", images, 6)


def test_calibration_images_are_the_first_or_drawn_by_their_seed():
    images = np.arange(20.0)
    np.testing.assert_array_equal(data.calibration_images(images, 3, None), [0, 1, 2])
    assert len(data.calibration_images(images, None, None)) == 20
    drawn, again, other = (data.calibration_images(images, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(drawn, again)
    assert len(set(drawn)) == 5 and set(drawn) != set(other)
    with pytest.raises(UserError, match="--calibration_images=21 with 20 images"):
        data.calibration_images(images, 21, 1)


TAKEN = (None, 8, 8, 1)


@pytest.mark.parametrize("held", [data.HELD_BYTES, 0])
def test_every_plain_image_is_cut_as_asked_for(monkeypatch, held):
    monkeypatch.setattr(data, "HELD_BYTES", held)
    settings = DataSettings(train_images=100)
    splits = {"train": open_source("digits").split("train").first(100)}
    splits["test"] = open_source("digits").split("test").first(30)
    for asked, recorded in ((None, 1.0), (0.5, 0.5)):
        split, found = data.labelled_images(settings, TAKEN, 30, asked)
        assert found.test_crop == recorded and split.size == 100
        for name, images in (("train", found.train_images), ("test", found.test_images)):
            expected = labelled_arrays(splits[name], 8, test_crop=recorded)[0]
            np.testing.assert_array_equal(list(images), expected)


def test_first_test_images_are_taken_with_their_labels():
    settings = DataSettings(train_images=400)
    (_, all_of_them), (_, few) = (
        data.labelled_images(settings, TAKEN, count) for count in (None, 7)
    )
    np.testing.assert_array_equal(few.test_images, all_of_them.test_images[:7])
    np.testing.assert_array_equal(few.test_labels, all_of_them.test_labels[:7])
    np.testing.assert_array_equal(few.train_images, all_of_them.train_images)


@pytest.fixture
def scans(tmp_path):
    """A folder of ten scans of each of two digits, and no test split."""
    split = open_source("digits").split("train")
    for record in split.first(200).records.as_numpy_iterator():
        folder = tmp_path / str(record["label"])
        if record["label"] < 2 and (not folder.exists() or len(list(folder.iterdir())) < 10):
            folder.mkdir(exist_ok=True)
            keras.utils.save_img(folder / f"{record['index']}.png", record["image"], scale=False)
    return f"folder:{tmp_path}"


def test_images_without_a_test_split_are_divided_as_training_divided_them(scans):
    with pytest.raises(UserError, match="has no test split; evaluation needs .*--holdout=0.2"):
        data.labelled_images(DataSettings(dataset=scans), TAKEN)
    settings = DataSettings(dataset=scans, holdout=0.2, holdout_seed=3)
    train, found = data.labelled_images(settings, TAKEN)
    assert (train.size, len(found.test_images)) == (16, 4)
    trained_on = labelled_arrays(training_split(settings), 8)[0]
    np.testing.assert_array_equal(found.train_images, trained_on)
    seen = {image.tobytes() for image in trained_on}
    assert not any(image.tobytes() in seen for image in found.test_images)


def test_run_that_held_images_out_is_tested_on_no_others(tmp_path, monkeypatch):
    run = DataSettings(dataset="folder:a", holdout=0.2, holdout_seed=1)
    assert data_of_subject(EvaluationDataSettings(), run) == run
    assert data_of_subject(EvaluationDataSettings(holdout=0.2, dataset="folder:a"), run) == run
    for given in ({"holdout": 0.3}, {"holdout_seed": 0}):
        with pytest.raises(UserError, match="held out --holdout=0.2 --holdout_seed=1"):
            data_of_subject(EvaluationDataSettings(**given), run)
    # However its folder is spelt.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    for name in ("a/", "./a", "link", tmp_path / "a"):
        assert data_of_subject(EvaluationDataSettings(f"folder:{name}"), run) == run
        with pytest.raises(UserError, match="held out --holdout=0.2 --holdout_seed=1"):
            data_of_subject(EvaluationDataSettings(f"folder:{name}", holdout=0.3), run)
    other = EvaluationDataSettings(dataset="folder:b", holdout=0.3)
    assert data_of_subject(other, run) == DataSettings(dataset="folder:b", holdout=0.3)
    with pytest.raises(UserError, match="--holdout_seed has no effect here: --holdout is missing"):
        data_of_subject(EvaluationDataSettings(holdout_seed=1), DataSettings())
