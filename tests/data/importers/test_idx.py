"""IDX files to a prepared TensorFlow data set and back; the files here are synthetic."""

import gzip
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfcq.data import tfds_source
from tfcq.data.importers import idx
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError

COUNTS = {"train": 12, "t10k": 5}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def synthetic(tmp_path):
    """A folder of four small IDX files of random images: training plain, test compressed."""
    folder, rng = tmp_path / "synthetic_idx", np.random.default_rng(0)
    folder.mkdir()
    for part, count in COUNTS.items():
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(array)
            path = folder / f"{part}-{kind}-ubyte"
            if part == "t10k":
                path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
            path.write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["fashion_mnist", "my_own_images"])
def test_a_prepared_set_reads_back_in_the_files_order_without_network(synthetic, tmp_path, name):
    arrays = idx.read_idx_folder(str(synthetic))
    folder = idx.write_tfds(arrays, name, str(tmp_path / "data"))
    assert pathlib.Path(folder).is_dir()
    source = open_source(name, str(tmp_path / "data"))
    for split in ("train", "test"):
        images, labels = labelled_arrays(source.split(split), 28)
        np.testing.assert_array_equal(np.round(images[..., 0] * 255), arrays[split][0])
        np.testing.assert_array_equal(labels, arrays[split][1])
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [name]


def test_fashion_mnist_is_found_by_tfds_itself_with_its_class_names(synthetic, tmp_path):
    idx.write_tfds(idx.read_idx_folder(str(synthetic)), "fashion_mnist", str(tmp_path))
    data, info = tfds.load("fashion_mnist", data_dir=tmp_path, split="test", with_info=True)
    assert len(data) == 5 and info.features["label"].names[9] == "Ankle boot"
    assert open_source("fashion_mnist", str(tmp_path)).split("test").class_names[0] == "T-shirt/top"


def test_sources_work_under_tfds_mock_data(synthetic, tmp_path):
    idx.write_tfds(idx.read_idx_folder(str(synthetic)), "fashion_mnist", str(tmp_path))
    with tfds.testing.mock_data(num_examples=7, data_dir=str(tmp_path)):
        split = open_source("fashion_mnist", str(tmp_path)).split("train")
        images, _ = labelled_arrays(split, 28)
    assert split.size == 7 and images.shape == (7, 28, 28, 1)


def test_some_sets_are_trained_with_their_validation_part(synthetic, tmp_path, monkeypatch):
    assert {"dtd", "oxford_flowers102"} <= set(tfds_source.TRAINED_WITH_VALIDATION)
    arrays = idx.read_idx_folder(str(synthetic))
    arrays["validation"] = tuple(part[:4] for part in arrays["test"])
    idx.write_tfds(arrays, "my_own_images", str(tmp_path))
    assert open_source("my_own_images", str(tmp_path)).split("train").size == 12
    monkeypatch.setattr(tfds_source, "TRAINED_WITH_VALIDATION", ("my_own_images",))
    source = open_source("my_own_images", str(tmp_path))
    images, labels = labelled_arrays(source.split("train"), 28)
    pixels = np.concatenate([arrays["train"][0], arrays["validation"][0]])
    np.testing.assert_array_equal(np.round(images[..., 0] * 255), pixels)
    assert labels.tolist()[12:] == arrays["validation"][1].tolist()
    assert source.split("test").size == 5


def test_some_sets_are_tested_on_their_validation_part(synthetic, tmp_path, monkeypatch):
    assert "imagenet2012" in tfds_source.TESTED_ON_VALIDATION
    arrays = idx.read_idx_folder(str(synthetic))
    arrays["validation"] = tuple(part[:4] for part in arrays["test"])
    idx.write_tfds(arrays, "my_own_images", str(tmp_path))
    assert open_source("my_own_images", str(tmp_path)).split("test").size == 5
    monkeypatch.setattr(tfds_source, "TESTED_ON_VALIDATION", ("my_own_images",))
    split = open_source("my_own_images", str(tmp_path)).split("test")
    _, labels = labelled_arrays(split, 28)
    assert labels.tolist() == arrays["validation"][1].tolist()


def test_an_existing_set_is_replaced_only_when_asked(synthetic, tmp_path):
    arrays = idx.read_idx_folder(str(synthetic))
    idx.write_tfds(arrays, "my_own_images", str(tmp_path / "data"))
    with pytest.raises(UserError, match="exists.*--overwrite"):
        idx.write_tfds(arrays, "my_own_images", str(tmp_path / "data"))
    fewer = {split: (images[:3], labels[:3]) for split, (images, labels) in arrays.items()}
    idx.write_tfds(fewer, "my_own_images", str(tmp_path / "data"), overwrite=True)
    assert open_source("my_own_images", str(tmp_path / "data")).split("train").size == 3


def test_an_interrupted_write_leaves_nothing(synthetic, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(tfds.core.SequentialWriter, "close_all", fail)
    with pytest.raises(OSError, match="disk full"):
        idx.write_tfds(idx.read_idx_folder(str(synthetic)), "digits_idx", str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_extend(path):
    path.write_bytes(path.read_bytes() + b"x")


def damage_magic(path):
    path.write_bytes(b"\0\0\x0d\3" + path.read_bytes()[4:])


def damage_header(path):
    path.write_bytes(path.read_bytes()[:9])


def damage_remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "is truncated: 9423 bytes received, 9424 allowed"),
        (damage_extend, "is too long"),
        (damage_magic, "starts with bytes 00 00 0d 03; allowed: 00 00 08 03"),
        (damage_header, "header ends after 9 bytes"),
        (damage_remove, "holds no train-images-idx3-ubyte"),
    ],
)
def test_damaged_files_are_refused(synthetic, damage, message):
    damage(synthetic / "train-images-idx3-ubyte")
    with pytest.raises(UserError, match=message):
        idx.read_idx_folder(str(synthetic))


def test_truncated_compressed_files_are_refused(synthetic):
    damage_truncate(synthetic / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match="cannot be read"):
        idx.read_idx_folder(str(synthetic))


def test_labels_that_do_not_belong_to_the_images_are_refused(synthetic):
    (synthetic / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with pytest.raises(UserError, match="12 images and 11 labels in train"):
        idx.read_idx_folder(str(synthetic))


def test_a_known_name_with_other_images_is_refused(synthetic, tmp_path):
    arrays = idx.read_idx_folder(str(synthetic))
    with pytest.raises(UserError, match="cannot be 'cifar10'.*another --name"):
        idx.write_tfds(arrays, "cifar10", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_mnist", "not prepared in .*--download.*python -m tfcq.data.importers.idx"),
        ("fashon_mnist", "Unknown data set.*Did you mean 'fashion_mnist'"),
        ("digit", "Did you mean 'digits'"),
    ],
)
def test_sets_that_are_not_there_are_told_in_one_line(tmp_path, name, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(name, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_tool_says_what_it_wrote_and_how_to_use_it(synthetic, tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "tfcq.data.importers.idx", f"--source={synthetic}", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(f"--data_dir={tmp_path / 'data'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 12 images of 28x28" in done.stdout
    assert f"--dataset=fashion_mnist --data_dir={tmp_path / 'data'}" in done.stdout
    refused = run("--data_dri=x")
    assert refused.returncode == 2 and refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
