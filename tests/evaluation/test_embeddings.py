"""Embeddings as files for other tools."""

import csv

import keras
import numpy as np
import pytest
from PIL import Image

import tfcq
from tfcq import features
from tfcq.backbones.resnet import resnet
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.nn.quantizable import quantizable
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat

TRAIN, TEST = 40, 357


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits with a small network."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(config_from_flat({"train_images": TRAIN}))
    quantizable(resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,)), "paper").save(folder.backbone)
    return folder


def write(*arguments):
    features.main(features.flag_set().parse([*map(str, arguments)]))


@pytest.fixture
def images(tmp_path):
    """A folder of images without classes, some of them with difficult names."""
    folder = tmp_path / "images"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a", "b,c", 'd"e', "f g"):
        pixels = draw.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def rows_of(file):
    with open(file, newline="") as text:
        return list(csv.reader(text))


def test_arrays_hold_what_the_backbone_makes_of_every_image(run, capsys):
    write(f"--run_dir={run.path}", "--bits=fp,4w4a", "--test_images=30")
    arrays = np.load(run.features / "features.npz")
    assert set(arrays) == {"fp", "4w4a", "labels", "splits", "files", "classes"}
    assert arrays["splits"].tolist() == ["train"] * TRAIN + ["test"] * 30
    assert arrays["classes"].tolist() == [str(digit) for digit in range(10)]
    source = open_source("digits")
    shown, labels = labelled_arrays(source.split("train").first(TRAIN), 8)
    np.testing.assert_array_equal(arrays["labels"][:TRAIN], labels)
    model = tfcq.load(run.backbone)
    np.testing.assert_allclose(arrays["fp"][:TRAIN], model(shown), rtol=1e-4, atol=1e-5)
    tfcq.calibrate(model, shown)
    quantized = model(shown, precision=tfcq.Precision(4, 4))
    np.testing.assert_allclose(arrays["4w4a"][:TRAIN], quantized, rtol=1e-4, atol=1e-4)
    assert np.abs(arrays["fp"] - arrays["4w4a"]).max() > 1e-3
    printed = capsys.readouterr().out
    for bits in ("fp", "4w4a"):
        file = run.features / f"features_{bits}.csv"
        head, *rows = rows_of(file)
        assert head[:4] == ["file", "split", "label", "0"] and str(file) in printed
        np.testing.assert_array_equal(np.float32([row[3:] for row in rows]), arrays[bits])
        assert [row[2] for row in rows] == arrays["labels"].astype(str).tolist()
    with pytest.raises(UserError, match=r"features.npz exists; .*--output_dir"):
        write(f"--run_dir={run.path}", "--bits=fp")


def test_images_of_a_folder_are_told_by_their_files_and_need_no_labels(run, images, tmp_path):
    out = tmp_path / "out"
    write(f"--run_dir={run.path}", f"--dataset=folder:{images}", "--bits=fp", "--train_images=4",
          f"--output_dir={out}")  # fmt: skip
    names = {file.name for file in images.iterdir()}
    arrays = np.load(out / "features.npz")
    assert set(arrays["files"]) == names and set(arrays["labels"]) == {-1}
    rows = rows_of(out / "features_fp.csv")[1:]
    assert [row[0] for row in rows] == arrays["files"].tolist()
    # In whichever order they stand, a name stands beside its image.
    model = tfcq.load(run.backbone)
    for name, found in zip(arrays["files"], arrays["fp"], strict=True):
        pixels = np.asarray(Image.open(images / name), np.float32)[None, ..., None] / 255
        np.testing.assert_allclose(found, model(pixels)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="--test_images has no effect here: .* no test split"):
        write(f"--run_dir={run.path}", f"--dataset=folder:{images}", "--bits=fp",
              "--train_images=4", "--test_images=2", f"--output_dir={tmp_path / 'b'}")  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_model_of_the_users_is_shown_whole_images_as_when_it_is_scored(run, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    dataset = tmp_path / "images"
    dataset.mkdir()
    Image.fromarray(pixels).save(dataset / "a.png")
    split = open_source(f"folder:{dataset}").split("train")
    own, trained = f"--model={run.backbone}", f"--run_dir={run.path}"
    for subject, crop, seen in [(own, 1, "whole"), (trained, 0.875, "in their central 0.875")]:
        out = tmp_path / str(crop)
        write(subject, "--bits=fp", f"--dataset=folder:{dataset}", "--train_images=1",
              f"--output_dir={out}")  # fmt: skip
        assert f"Plain images are seen {seen}; see --test_crop." in capsys.readouterr().out
        shown, _ = labelled_arrays(split, 8, test_crop=crop)
        expected = tfcq.load(run.backbone)(shown)
        found = np.load(out / "features.npz")["fp"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_images_that_the_backbone_does_not_take_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"have shape \(9, 9, 1\); the model takes \(8, 8, 1\)"):
        write(f"--run_dir={run.path}", "--image_size=9", f"--output_dir={tmp_path / 'a'}")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("flag", ["--bits=fp,9x", "--run_dir=no/such", "--protocol=knn"])
def test_mistake_is_told_before_anything_is_read(flag, run):
    with pytest.raises(UserError):
        write(f"--run_dir={run.path}", flag)
