"""What cannot be detected with or on is told in one line, with exit code 2."""

import importlib.util
import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.detection import small
from tfcq import command_line, detect
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.settings.run_lock import locked

SHAPE = (32, 32, 3)
NETWORKS = {
    "resnet": lambda: small.backbone(channels=3),
    "grey": lambda: small.backbone(channels=1),
    "cifar": lambda: small.backbone(channels=3, stem="cifar"),
    "mobilenet": lambda: mobilenet_v2(input_shape=SHAPE),
    "transformer": lambda: vision_transformer(
        input_shape=SHAPE, depth=1, width=16, heads=2, patch_size=8
    ),
}
BOX = [5, 5, 40, 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks, and folders of images with boxes."""
    folder = tmp_path_factory.mktemp("refusals")
    for name, make in NETWORKS.items():
        make().save(folder / f"{name}.keras")
    of_cats = [(0, BOX), (0, BOX)]
    for name, splits in {
        "boxes": {"train": of_cats, "test": of_cats},
        "without": {"train": [], "test": of_cats},
        "flat": {"train": [(0, [5, 5, 0, 40]), (0, BOX)], "test": of_cats},
        "unseen": {"train": of_cats, "test": [(1, BOX)]},
        "untested": {"train": of_cats},
        "damaged": {"train": of_cats, "test": of_cats},
        "corners": {"train": [(0, [20, 20, 60, 60]), (0, [5, 30, 9, 50])], "test": of_cats},
        "sizes": {"train": of_cats, "test": of_cats},
    }.items():
        for split, boxes in splits.items():
            write(folder / name / split, boxes, 70 if name == "sizes" else 64)
    (folder / "damaged" / "train" / "1.png").write_bytes(b"no image")
    (folder / "file").write_text("text")
    return folder


def write(folder, boxes, second=64):
    folder.mkdir(parents=True)
    images = [
        {"id": n, "file_name": f"{n}.png", "width": 64, "height": height}
        for n, height in enumerate((64, second))
    ]
    for image in images:
        pixels = np.zeros((image["height"], 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    annotations = [
        {"id": n, "image_id": n, "category_id": number, "bbox": box}
        for n, (number, box) in enumerate(boxes)
    ]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    found = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(found))


@pytest.fixture
def told(folder, tmp_path, monkeypatch, capsys):
    """Returns what the command tells of flags beside usual ones, in one line."""
    monkeypatch.chdir(folder)

    started = []
    start_up = command_line.Command.start_up
    monkeypatch.setattr(
        command_line.Command, "start_up",
        lambda *args, **options: started.append(1) or start_up(*args, **options),
    )  # fmt: skip

    def error(flags):
        usual = f"--model=resnet.keras --dataset=boxes:boxes --output_dir={tmp_path / 'out'}"
        usual += " --epochs=1 --batch_size=2 --warmup=0epochs --bits=fp"
        monkeypatch.setattr(sys, "argv", ["detect", *usual.split(), *flags.split()])
        with pytest.raises(SystemExit) as ended:
            command_line.run(detect.flag_set(), detect.main)
        assert ended.value.code == command_line.USER_ERROR
        (line,) = capsys.readouterr().err.splitlines()
        return line

    error.started = started
    return error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--model=file", "Unknown model 'file'; allowed: PATH.keras, PATH.pth or PATH.safetensors"),
        ("--model=none.keras", "none.keras does not exist"),
        ("--dataset=cifar10", "'cifar10' has no boxes; allowed: .* Did you mean 'scenes:cifar10'"),
        ("--dataset=boxes:without", "without/train/annotations.json holds no boxes"),
        (
            "--dataset=boxes:flat --strict_data",
            r"'0.png'\) is a box of 0 x 40 pixels .*; allowed: boxes with an",
        ),
        ("--dataset=boxes:unseen", "Class 'dog' of the test split .* has no box in the training"),
        ("--dataset=boxes:damaged", "Image '1.png' of damaged/.* cannot be used: it is no image"),
        ("--shorter_side=15", "--shorter_side=15 cannot be used; allowed: .* from 16 on"),
        ("--output_dir=file", "file cannot be made: file is a file; allowed: a folder"),
        ("--bits=fp,4w4a,fp", "Bit-width 'fp' stands twice in 'fp,4w4a,fp'; name it once"),
    ],
)
def test_mistakes_are_told_in_one_line(told, tmp_path, flags, expected):
    line = told(flags)
    assert re.search(expected, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--model=cifar.keras", "has the stem for small images"),
        ("--model=mobilenet.keras", "'mobilenet_v2' has no four stages to detect with; allowed: "),
        ("--model=transformer.keras", "has no four stages to detect with; allowed: resnet18"),
        ("--dataset=voc --data_dir=. --shorter_side=64", r"'voc/2007' is not prepared in '.*'; "
         r"allowed: --data_dir where it is, --download to fetch it\.$"),
        ("--dataset=coco --detector=mask_rcnn", "'coco' of .* has no masks; allowed: scenes, or"),
        ("--detector=mask_rcnn", "boxes/train/annotations.json has boxes without a segmentation"),
        ("--dataset=scenes:mnist --data_dir=.", "'mnist' is not prepared .*importers.idx to make"),
        ("--dataset=voc", "Images of 'voc' have several sizes; give --shorter_side"),
        ("--dataset=boxes:sizes", "Images of 'boxes:sizes' have several sizes; give --shorter"),
        ("--dataset=scenes", "Images of 'scenes' have 1 channels; .*resnet.keras takes 3"),
        ("--model=grey.keras", "Images of 'boxes:boxes' have 3 channels; .*grey.keras takes 1"),
        (
            "--dataset=boxes:untested",
            "'boxes:untested' has no test split; give --holdout=0.2, .*, or .* train and test",
        ),
        ("--holdout=0.2", "--holdout=0.2 has no effect: .* 'boxes:boxes' has a test split of its"),
        (
            "--dataset=boxes:corners",
            "2 of 2 boxes of corners/train/annotations.json reach beyond their image; allowed: at "
            "most half of them, as COCO's boxes are x, y, width, height, not x1, y1, x2, y2",
        ),
    ],
)  # fmt: skip
def test_what_needs_no_network_is_told_before_one_is_read(told, tmp_path, flags, expected):
    line = told(flags)
    assert re.search(expected, line), line
    assert told.started == []
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_or_of_another_detector_is_refused_before_a_network_is_read(told, tmp_path):
    folder = tmp_path / "out"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"detector": "yolov4"}))
    assert "holds another detector (" in (line := told("")), line
    assert "detector: 'yolov4' -> 'faster_rcnn'" in line
    (folder / "config.json").unlink()
    with locked(folder):
        assert f"{folder} is being trained into by process" in told("")
    assert told.started == []


def test_without_pycocotools_its_installation_is_told(told, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pycocotools" else find(name)
    )
    assert "install it with `pip install pycocotools`" in told("")


def test_an_image_without_a_box_is_left_out_and_told(folder, caplog):
    write(folder / "one" / "train", [(0, BOX)])
    with caplog.at_level("WARNING", "absl"):
        assert open_boxes(f"boxes:{folder / 'one'}").split("train").size == 1
    assert "1 of 2 training images have no box and are not trained on" in caplog.text


def test_checkpoints_of_another_network_and_damaged_ones_are_refused(told, tmp_path):
    place = tmp_path / "out" / "checkpoints"
    other = tf.train.Checkpoint(pretrainer=keras.Sequential([keras.Input((2,))]))
    manager = tf.train.CheckpointManager(other, str(place), max_to_keep=1)
    manager.save(checkpoint_number=1)
    assert f"Checkpoint {place}/ckpt-1 cannot be restored" in told("")
    (data,) = place.glob("*.data*")
    data.write_bytes(data.read_bytes()[:9])
    assert "cannot be restored" in told("")


def test_an_image_that_breaks_off_is_told_when_it_is_read(told, folder):
    file = folder / "damaged" / "train" / "1.png"
    # Whole at its beginning, which is all that is read of many images before.
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-2000])
    expected = "of 'boxes:damaged' can be read no more, the last 'damaged/train/1.png'"
    assert expected in told("--dataset=boxes:damaged")


def test_qat_goes_on_from_whole_files_of_the_same_detector_alone(told, tmp_path):
    qat = "--protocol=qat --bits=4w4a"
    assert "holds no trained detector, which qat goes on from" in told(qat)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "trunk.keras").write_bytes(b"PK\x03\x04 and no more")
    assert "trunk.keras cannot be read as a Keras model: it is not whole" in told(qat)
    config = {"model": "resnet.keras", "dataset": "boxes:boxes", "detector": "faster_rcnn"}
    (folder / "config.json").write_text(json.dumps({**config, "run_dir": None}))
    # Weights of as many anchors fit, but would find other boxes.
    expected = "holds another detector (anchor_sizes: None -> '16,32'); give the same settings"
    told.started.clear()
    assert expected in told(f"{qat} --anchor_sizes=16,32")
    assert told.started == []
