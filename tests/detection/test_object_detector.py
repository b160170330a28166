"""Detectors loaded from their folder, on images of a user's own."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tests.detection import small, small_mask_rcnn
from tfcq.backbones.resnet import resnet
from tfcq.data.boxed.box_batches import plain_batches
from tfcq.detection.quantized import post_training
from tfcq.detection.saved import load_detector, save_detector
from tfcq.detection.yolo import Yolo, YoloSettings, yolo_parts
from tfcq.errors import UserError
from tfcq.post_training.plan import Plan
from tfcq.settings.bitwidths import BitWidth

NAMES = [f"digit {number}" for number in range(10)]
BITS = BitWidth(4, 8)


@pytest.fixture(scope="module")
def trained():
    return small.faster_rcnn()


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    save_detector(trained, folder, NAMES, 96, 120)
    return folder


@pytest.fixture(scope="module")
def source():
    """The first images of the split, and all its images as arrays."""
    split = small.scenes().split("test").first(3)
    decoded = split.records.map(split.decode).as_numpy_iterator()
    return split, np.stack([one["image"] for one in decoded])


@pytest.fixture(autouse=True)
def eagerly():
    """Graphs would take longer to build."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def check_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes)
        for name in ("boxes", "scores", "classes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_loaded_detector_finds_what_the_saved_one_does_at_every_bit_width(
    trained, folder, source
):
    split, images = source
    loaded = load_detector(folder)
    assert loaded.class_names == tuple(NAMES) and loaded.detector.settings == small.SETTINGS
    plain = list(plain_batches(split, 8, 96, 120, trained.stride))
    check_same(loaded.detect(images), list(trained.found(plain)))
    with pytest.raises(UserError, match=r"'trunk' has no activation ranges to run at 4w8a; .* fp"):
        loaded.detect(images, BITS)
    quantized = loaded.quantized(images)
    expected = list(post_training(trained, plain, Plan())(BITS).found(plain, BITS))
    check_same(quantized.detect(images, BITS), expected)
    assert not np.array_equal(expected[0].scores, quantized.detect(images)[0].scores)


def test_images_of_any_size_are_found_in_their_own_pixels_and_order(folder, source):
    images = [source[1][0], np.repeat(np.repeat(source[1][1], 2, 0), 2, 1), source[1][2][:40, :56]]
    loaded = load_detector(folder)
    together = loaded.detect([images[1], images[0], images[2], images[0]])
    alone = [loaded.detect([image])[0] for image in images]
    for one, other in zip(together, (alone[1], alone[0], alone[2], alone[0]), strict=True):
        # Sums of batches are taken in another order, so that near scores may change places.
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
        np.testing.assert_allclose(np.sort(one.boxes, 0), np.sort(other.boxes, 0), atol=1e-2)
    for one, (height, width) in zip(together, ((128, 128), (64, 64), (40, 56)), strict=False):
        ends = one.boxes.max(axis=0)[2:]
        assert np.all(ends <= [height + 1e-3, width + 1e-3]) and np.all(ends > [20, 20])
    # Ranges of images of several sizes, which are padded to one.
    assert len(loaded.quantized(images).detect(images, BITS)) == 3


def test_masks_are_as_large_as_the_images(tmp_path):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    save_detector(small_mask_rcnn.mask_rcnn(), tmp_path, "abc", 64, 64)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 1), np.uint8)
    (found,) = load_detector(tmp_path).detect([image])
    assert len(found.masks) == len(found.boxes) > 0
    assert coder.decode(found.masks[0]).shape == (32, 48)


def test_settings_of_every_detector_are_those_that_were_saved(tmp_path):
    backbone = resnet(18, "imagenet", 2, (64, 64, 1), (1, 1, 1, 1))
    settings = YoloSettings(tuple((h / 6, w / 6) for h, w in YoloSettings().shapes), depth=1)
    made = Yolo(yolo_parts(backbone, 2, "paper", settings), 2, settings, seed=3)
    save_detector(made, tmp_path, ["a", "b"], 64, 64)
    loaded = load_detector(tmp_path).detector
    assert (type(loaded), loaded.settings, loaded.seed) == (Yolo, settings, 3)
    for one, other in zip(loaded.get_weights(), made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_trained_at_a_bit_width_runs_there_alone(trained, tmp_path, source):
    save_detector(trained, tmp_path, NAMES, 64, 64, BITS)
    loaded = load_detector(tmp_path).quantized(source[1])
    assert len(loaded.detect(source[1], BITS)) == len(loaded.detect(source[1])) == 3
    with pytest.raises(UserError, match="was trained at 4w8a; allowed: it or fp"):
        loaded.detect(source[1], BitWidth(8, 8))


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([np.zeros((8, 8, 1))], r"Image 0 has shape \(8, 8, 1\) and type float64; allowed: uint8"),
        ([np.zeros((8, 8), np.uint8)], r"Image 0 has shape \(8, 8\)"),
        ([np.zeros((8, 8, 3), np.uint8)], r"allowed: uint8 of \[height, width, 1\]"),
        ([np.zeros((0, 8, 1), np.uint8)], r"Image 0 has shape \(0, 8, 1\)"),
        ([], "No image was given"),
    ],
)
def test_other_images_are_refused(folder, images, told):
    detector = load_detector(folder)
    for take in (detector.detect, detector.quantized):
        with pytest.raises(UserError, match=told):
            take(images)


def test_what_is_no_detector_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="holds no detector.json; allowed: the folder of a detect"):
        load_detector(tmp_path)
    about = json.loads((folder / "detector.json").read_text())
    for change, told in (
        ({"detector": "faster_rcn"}, "Did you mean 'faster_rcnn'"),
        ({"settings": {}}, "is of another version of tfcq, which 'anchor_sizes' tells"),
        ({"networks": ["trunk"]}, "trunk.keras does not exist"),
        ({"class_names": [1]}, "'class_names', 1 is '1'; allowed: text"),
    ):
        (tmp_path / "detector.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(UserError, match=told):
            load_detector(tmp_path)
    with pytest.raises(UserError, match=r"bits='4w4a' was received; allowed: tfcq.BitWidth"):
        tfcq.load_detector(folder).detect(np.zeros((1, 8, 8, 1), np.uint8), "4w4a")
