"""A folder named like a split is one only if its content says so."""

import os

import pytest
import tensorflow as tf

from tfcq.data.folder import FolderSource
from tfcq.data.folder_layout import split_roots
from tfcq.errors import UserError

PIXEL = tf.io.encode_png(tf.zeros((2, 2, 3), tf.uint8)).numpy()


@pytest.fixture
def folder(tmp_path):
    """Returns a function that makes a folder with an image at each of some places."""

    def make(*places: str) -> str:
        for place in places:
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            if place.endswith("/"):
                (tmp_path / place).mkdir()
            else:
                (tmp_path / place).write_bytes(PIXEL)
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("places", "roots", "classes"),
    [
        ("bus/1.png car/1.png train/1.png", ".", "bus car train"),
        ("bus/1.png val/1.png", ".", "bus val"),
        ("valid/1.png invalid/1.png", ".", "invalid valid"),
        ("train/1.png tram/1.png test/1.png", ".", "test train tram"),
        ("train/a/1.png train/b/1.png test/a/1.png test/b/1.png", "train test", "a b"),
        ("train/a/1.png val/a/1.png", "train val", "a"),
        ("Training/a/1.png VALID/a/1.png", "Training VALID", "a"),
        ("train/a/1.png validation/a/1.png notes/", "train validation", "a"),
        ("train/a/1.png dev/a/1.png", "train dev", "a"),
        ("train/a/1.png val/a/1.png test/a/1.png", "train test", "a"),
        # Test images without labels, as competitions have them.
        ("train/a/1.png val/a/1.png test/1.png", "train val", "a"),
        ("train/a/1.png test/1.png", "train", "a"),
        # A class called train in a split called train.
        ("train/train/1.png train/bus/1.png test/train/1.png test/bus/1.png", "train test",
         "bus train"),
        ("train/1.png test/1.png", "train test", None),
        ("train/1.png labels/", "train", None),
        ("a/1.png .thumbnails/1.png __MACOSX/a/1.png @eaDir/1.png", ".", "a"),
        ("a/1.png a/._1.png a/.2.png", ".", "a"),
    ],
)  # fmt: skip
def test_content_tells_splits_from_classes(folder, places, roots, classes):
    path = folder(*places.split())
    expected = [os.path.normpath(os.path.join(path, root)) for root in roots.split()]
    assert list(split_roots(path).values()) == expected
    train = FolderSource(path).split("train")
    assert train.class_names == (tuple(classes.split()) if classes else None)
    shown = [p for p in places.split() if p.endswith(".png") and "." not in p[:-4]]
    inside = [p for p in shown if roots == "." or p.startswith(f"{roots.split()[0]}/")]
    assert sorted(train.names) == sorted(p for p in inside if "__" not in p and "@" not in p)


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ("train/a/1.png unlabelled/1.png", "holds 'train' with class folders beside 'unlabelled'"),
        ("bus/x/1.png train/y/1.png", "holds 'train' with class folders beside 'bus'.*Move 'bus'"),
        ("val/a/1.png valid/a/1.png train/a/1.png", "'val' and 'valid', both the validation split"),
        ("test/a/1.png val/a/1.png", "holds test, val but no train"),
        ("a/x/1.png b/1.png", "a' holds no images but in sub-folders, which are not read"),
    ],
)
def test_what_could_be_either_is_refused_in_one_line(folder, places, text):
    with pytest.raises(UserError, match=text) as caught:
        FolderSource(folder(*places.split()))
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_said(folder, caplog):
    path = folder("train/a/1.png", "val/a/1.png", "test/a/1.png", "sample.png", "train/a/._1.png",
                  "Valid/")  # fmt: skip
    with caplog.at_level("WARNING", "absl"):
        FolderSource(path)
    assert "Valid is not used: it holds no images" in caplog.text
    assert "val is not used: evaluation takes test" in caplog.text
    assert "1 images beside the splits are not used" in caplog.text
    assert "1 hidden" in caplog.text


def test_links_that_lead_in_circles_end(folder, tmp_path):
    path = folder("train/1.png", "other/")
    (tmp_path / "other" / "up").symlink_to(tmp_path / "other")
    assert list(split_roots(path)) == ["train"]
