"""A detection the whole way, from data of TensorFlow Datasets to figures and pictures."""

import json
from fnmatch import fnmatch

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tests.detection import small
from tests.tfds_folders import write_voc
from tfcq import detect as command
from tfcq.detection.kinds import detector_from
from tfcq.settings.detection import detection_from_flat
from tfcq.settings.detection_groups import DETECTORS

LARGE, SMALL = (9, 9, 56, 56), (5, 5, 20, 24)
VOC = {
    "2007": {
        "train": [(64, 64, [(*LARGE, "dog", False), (*SMALL, "cat", True)]), (64, 80, [])],
        "validation": [(60, 60, [(*LARGE, "car", False)])],
        "test": [
            (64, 70, [(*LARGE, "dog", False)]),
            (70, 64, [(*LARGE, "cat", True), (*SMALL, "car", False)]),
        ],
    },
    "2012": {
        "train": [(64, 64, [(*LARGE, "car", False)])],
        "validation": [(80, 64, [(*SMALL, "dog", False)])],
    },
}


@pytest.fixture
def voc(monkeypatch, tmp_path):
    """Flags of a detection on VOC; graphs would take longer to build."""
    monkeypatch.setattr(
        "tfcq.detection.faster_rcnn._settings", lambda config, shorter: small.SETTINGS
    )
    write_voc(str(tmp_path / "tfds"), VOC)
    tfcq.quantizable(small.backbone(channels=3)).save(tmp_path / "backbone.keras")
    tf.config.run_functions_eagerly(True)
    yield [
        f"--model={tmp_path / 'backbone.keras'}", f"--output_dir={tmp_path / 'out'}",
        "--dataset=voc", f"--data_dir={tmp_path / 'tfds'}", "--shorter_side=48,64",
        "--longest_side=96", "--epochs=1", "--batch_size=2", "--warmup=0epochs",
        "--bits=fp,4w4a",
    ]  # fmt: skip
    tf.config.run_functions_eagerly(False)


def run(flags):
    command.main(command.flag_set().parse(flags))


def test_voc_of_a_small_tfds_folder_goes_the_whole_way(voc, tmp_path, capsys):
    run(voc)
    told = capsys.readouterr().out
    assert "voc, faster_rcnn, finetune, 2 test images of 20 classes" in told
    folder = tmp_path / "out"
    record = json.loads((folder / "finetune.json").read_text())
    # Four of five training images of both years have a box.
    assert (record["train_images"], record["test_images"], record["classes"]) == (4, 2, 20)
    assert [entry["bits"] for entry in record["results"]] == ["fp", "4w4a"]
    for entry in record["results"]:
        for form in ("coco", "voc07"):
            assert 0 <= entry[form]["AP"] <= entry[form]["AP50"] <= 100
    for picture in ("finetune_fp_4w4a.png", "finetune_precision.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    for name in ("trunk", "proposals", "box_head"):
        assert keras.models.load_model(folder / f"{name}.keras").count_params() > 0
    # Elsewhere they are the same data: nothing is trained anew, further bits are measured.
    # A network that was not saved before the end is saved then.
    (tmp_path / "tfds").rename(tmp_path / "moved")
    (folder / "box_head.keras").unlink()
    moved = [flag.replace(str(tmp_path / "tfds"), str(tmp_path / "moved")) for flag in voc]
    run([*moved, "--bits=2w4a"])
    assert (folder / "box_head.keras").exists()
    results = json.loads((folder / "finetune.json").read_text())["results"]
    assert results[:2] == record["results"] and results[2]["bits"] == "2w4a"


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_seed_decides_every_weight_that_is_not_the_backbones(detector):
    backbone = small.backbone()

    def kernels(seed):
        config = detection_from_flat({"run_dir": "RUN", "detector": detector})
        keras.utils.set_random_seed(seed)
        made = detector_from(config, backbone, 3, 64)
        heads = [w for w in made.weights if any(fnmatch(w.path, f"*{h}*") for h in made.HEADS)]
        return {w.path: w.numpy() for w in heads if w.path.endswith("kernel")}

    one, same, other = kernels(0), kernels(0), kernels(1)
    assert len(one) >= 5
    for name, kernel in one.items():
        np.testing.assert_array_equal(kernel, same[name], err_msg=name)
        assert not np.array_equal(kernel, other[name]), name
    # Nor do two of one shape begin alike.
    assert len({kernel.tobytes() for kernel in one.values()}) == len(one)
