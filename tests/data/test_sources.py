"""Opening data sets by name: digits and folders."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.settings.datasets import check_dataset_name


def write_image(path: pathlib.Path, value: int, shape=(6, 5, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(shape, value, np.uint8)
    encode = tf.io.encode_png if path.suffix.lower() == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(image).numpy())


@pytest.fixture
def pets(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "cat" / "b.png", 10)
        write_image(tmp_path / split / "cat" / "a.JPG", 20)
        write_image(tmp_path / split / "dog" / "c.jpeg", 30)
    return tmp_path


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    scans, source = load_digits(), open_source("digits")
    # 0 to 16, times 255 / 16, rounded to whole pixels with halves up.
    pixels = (scans.images.astype(int) * 510 + 16) // 32
    parts = train_test_split(
        pixels, scans.target, test_size=360, random_state=0, stratify=scans.target
    )
    for name, images, labels in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
        split = source.split(name)
        assert (split.size, split.image_shape) == (len(labels), (8, 8, 1))
        found = labelled_arrays(split, 8)
        np.testing.assert_array_equal(found[0][..., 0], np.float32(images) / 255)
        np.testing.assert_array_equal(found[1], labels)


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="no split 'valid'; allowed: train, test"):
        open_source("digits").split("valid")


def test_folders_give_classes_in_sorted_order(pets):
    split = open_source(f"folder:{pets}").split("test")
    assert (split.size, split.class_names, split.image_shape) == (3, ("cat", "dog"), (6, 5, 3))
    images, labels = labelled_arrays(split, 5)
    found = sorted(zip(labels.tolist(), np.round(images[:, 0, 0, 0] * 255).tolist(), strict=True))
    np.testing.assert_allclose(found, [(0, 10), (0, 20), (1, 30)], atol=1)


def test_first_images_of_a_folder_are_a_sample_of_all_classes(tmp_path):
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        for index in range(20):
            write_image(tmp_path / name / f"{index:02}.png", value, (4, 4, 1))
    split = open_source(f"folder:{tmp_path}").split("train")
    labels = labelled_arrays(split.first(20), 4)[1]
    assert set(labels.tolist()) == {0, 1, 2}
    again = open_source(f"folder:{tmp_path}").split("train")
    assert labelled_arrays(again.first(20), 4)[1].tolist() == labels.tolist()


def test_images_without_class_folders_are_unlabelled_and_may_vary_in_size(tmp_path):
    write_image(tmp_path / "a.png", 1, (4, 6, 1))
    write_image(tmp_path / "b.png", 2, (5, 5, 1))
    source = open_source(f"folder:{tmp_path}")
    split = source.split("train")
    assert (split.image_shape, split.class_names) == ((None, None, 1), None)
    assert labelled_arrays(split, 4)[1].tolist() == [-1, -1]
    with pytest.raises(UserError, match="no split 'test'; allowed: train"):
        source.split("test")


def test_broken_files_are_named_counted_and_skipped(pets, caplog):
    (pets / "train" / "cat" / "broken.png").write_bytes(b"not an image")
    whole = (pets / "train" / "dog" / "c.jpeg").read_bytes()
    (pets / "train" / "dog" / "cut.jpeg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level("WARNING", "absl"):
        split = open_source(f"folder:{pets}").split("train")
    assert split.size == 3
    assert "broken.png" in caplog.text and "cut.jpeg" in caplog.text
    assert "2 of 5 image files skipped" in caplog.text


def test_broken_files_are_errors_when_strict(pets):
    (pets / "train" / "cat" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match="broken.png") as caught:
        open_source(f"folder:{pets}", strict=True).split("train")
    assert "\n" not in str(caught.value)


def test_what_is_not_an_image_is_counted_and_said(pets, caplog):
    for name in ("cat/notes.txt", "dog/more.TXT", "README"):
        (pets / "train" / name).write_text("text")
    with caplog.at_level("WARNING", "absl"):
        open_source(f"folder:{pets}")
    assert "2 .txt, 1 without extension" in caplog.text


def test_grey_images_among_colour_ones_and_alpha_are_said(tmp_path, caplog):
    write_image(tmp_path / "a.png", 1, (4, 4, 1))
    write_image(tmp_path / "b.png", 2, (4, 4, 3))
    write_image(tmp_path / "c.png", 3, (4, 4, 4))
    with caplog.at_level("WARNING", "absl"):
        split = open_source(f"folder:{tmp_path}").split("train")
    assert split.image_shape == (4, 4, 3)
    assert "1 of 3 images are grey-scale" in caplog.text
    assert "1 of 3 images have transparent pixels" in caplog.text
    assert labelled_arrays(split, 4)[0].shape == (3, 4, 4, 3)


def test_unusable_folders_are_refused(pets, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="holds no images"):
        open_source(f"folder:{empty}")
    (pets / "train" / "eel").mkdir()
    with pytest.raises(UserError, match="eel' holds no images"):
        open_source(f"folder:{pets}")
    write_image(pets / "train" / "eel" / "d.png", 1)
    with pytest.raises(UserError, match="differ in eel"):
        open_source(f"folder:{pets}")
    write_image(pets / "train" / "e.png", 1)
    with pytest.raises(UserError, match="images beside class folders"):
        open_source(f"folder:{pets}")


def test_missing_folders_name_their_nearest_neighbour(pets):
    with pytest.raises(UserError, match=r"Did you mean 'folder:.*train'"):
        check_dataset_name(f"folder:{pets / 'trian'}")


@pytest.mark.parametrize("name", ["folder:", "dig its", "", "-"])
def test_impossible_names_are_refused_with_what_is_allowed(name):
    with pytest.raises(UserError, match="allowed: .*folder:PATH"):
        check_dataset_name(name)


@pytest.mark.parametrize("name", ["folder:a\ud800", "./\ud800", "/\0", "folder:\0", "x\udfff/y"])
def test_characters_that_no_path_can_hold_are_told(name):
    with pytest.raises(UserError, match="--dataset=.* holds a character that cannot be used"):
        check_dataset_name(name)


def test_a_path_given_as_a_name_is_answered_with_the_right_spelling(pets):
    with pytest.raises(UserError, match=f"Did you mean 'folder:{pets}'"):
        check_dataset_name(str(pets))


def test_arguments_that_a_source_has_no_use_for_are_refused(pets):
    with pytest.raises(UserError, match="no use for data_dir='x'"):
        open_source("digits", data_dir="x")
    with pytest.raises(UserError, match="strict has no use"):
        open_source("digits", strict=True)
