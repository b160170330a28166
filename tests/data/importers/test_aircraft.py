"""FGVC-Aircraft's lists become class folders; these are a few synthetic images of their form."""

import numpy as np
import pytest

import tfcq.data.sources
from tfcq.data.importers import aircraft
from tfcq.errors import UserError

LISTS = {
    "trainval": ["001 A300", "002 F/A-18", "003 A300", "004 F/A-18"],
    "test": ["005 F/A-18", "006 A300"],
}


@pytest.fixture
def archive(tmp_path):
    import keras

    source = tmp_path / "archive"
    (source / "images").mkdir(parents=True)
    for name, lines in LISTS.items():
        (source / f"images_variant_{name}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            pixels = np.full((9, 7, 3), 20 * int(line[:3]))
            keras.utils.save_img(source / "images" / f"{line[:3]}.jpg", pixels, scale=False)
    return source


def test_every_image_lies_in_the_folder_of_its_class_and_is_read(archive, tmp_path):
    output = tmp_path / "made" / "aircraft"
    aircraft.write_folder(aircraft.read_lists(str(archive), "variant"), str(output))
    found = sorted(str(path.relative_to(output)) for path in output.rglob("*.jpg"))
    assert found == [
        "test/A300/006.jpg", "test/F-A-18/005.jpg", "train/A300/001.jpg", "train/A300/003.jpg",
        "train/F-A-18/002.jpg", "train/F-A-18/004.jpg",
    ]  # fmt: skip
    assert [path.name for path in output.parent.iterdir()] == ["aircraft"]
    source = tfcq.data.sources.open_source(f"folder:{output}")
    split = source.split("test")
    records = list(split.records.map(split.decode).as_numpy_iterator())
    assert [record["label"] for record in records] == [0, 1]
    assert [round(float(record["image"].mean())) for record in records] == [120, 100]


def test_folder_that_exists_is_not_written_to(archive, tmp_path):
    with pytest.raises(UserError, match="exists; allowed: a folder that does not"):
        aircraft.write_folder(aircraft.read_lists(str(archive), "variant"), str(tmp_path))


def test_nothing_is_left_where_an_image_cannot_be_copied(archive, tmp_path):
    lists = aircraft.read_lists(str(archive), "variant")
    (archive / "images" / "006.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        aircraft.write_folder(lists, str(tmp_path / "made" / "aircraft"))
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("level", "line", "text"),
    [
        ("varient", "001 A300", "level 'varient'; allowed: .*Did you mean 'variant'"),
        ("family", "001 A300", "holds no images_family_trainval.txt; allowed: the folder 'data'"),
        ("variant", "001", "line 1: '001'; allowed: an image and its class"),
        ("variant", "009 A300", "line 1: .*009.jpg' does not exist"),
    ],
)
def test_archives_of_another_form_are_refused(archive, level, line, text):
    (archive / "images_variant_trainval.txt").write_text(line)
    with pytest.raises(UserError, match=text):
        aircraft.read_lists(str(archive), level)
