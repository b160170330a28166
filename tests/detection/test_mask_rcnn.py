"""Mask R-CNN: what its parts hand each other, in float and at every precision."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.detection import small_mask_rcnn as small
from tfcq.data.boxed.box_batches import plain_batches, training_batches
from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.digits import DigitsSource
from tfcq.detection import mask_rcnn as room
from tfcq.detection.average_precision import Detections
from tfcq.detection.boxes import pairwise_iou
from tfcq.detection.detector import Detector
from tfcq.detection.kinds import detector_from
from tfcq.detection.mask_head import mask_loss
from tfcq.detection.mask_rcnn import MaskRCNN
from tfcq.detection.pictures import draw_found
from tfcq.detection.quantized import post_training
from tfcq.detection.roi_align import pyramid_align
from tfcq.detection.scores import scores
from tfcq.detection.suppression import Kept
from tfcq.detection.truths import truths_of
from tfcq.errors import UserError
from tfcq.nn.float_model import float_model
from tfcq.nn.quantizable import quantizers_of
from tfcq.post_training.plan import Plan
from tfcq.quantization.precision import Precision
from tfcq.reporting.detection import detection_table
from tfcq.settings.bitwidths import parse_bit_widths
from tfcq.settings.detection import detection_from_flat

STRIDES = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def source():
    counts = {"train": 4, "test": 3}
    return ScenesSource(DigitsSource(), "scenes", 64, counts=counts)


@pytest.fixture(scope="module")
def plain(source):
    return next(iter(plain_batches(source.split("test"), 3, 64, 64)))


@pytest.fixture(scope="module")
def detector():
    return small.mask_rcnn()


@pytest.fixture
def eagerly():
    """Runs functions without the graph, which takes longer to make than to run once."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def found(detector, plain):
    return detector.find(plain["images"], plain["sizes"])


@pytest.fixture(scope="module")
def read(detector, plain):
    return detector.inputs_of_parts([plain])


def test_float_detections_and_masks_are_those_of_the_float_networks(detector, found, plain):
    def in_float(part):
        network = float_model(part)
        # Detectors hand every part a precision, of which it knows nothing.
        return lambda inputs, training, precision: network(inputs, training=training)

    floats = {name: in_float(part) for name, part in detector.parts.items()}
    plainly = MaskRCNN(floats, small.CLASSES, small.SETTINGS)
    for one, other in zip(found, plainly.find(plain["images"], plain["sizes"]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(found.scores > 0)


def test_each_mask_is_what_the_head_makes_of_the_detections_box_alone(detector, found, plain):
    levels = detector.parts["trunk"](plain["images"])[:4]
    there = found.classes.numpy() >= 0
    assert there.any() and not there.all() and np.all(found.masks.numpy()[~there] == 0)
    for image, place in np.argwhere(there)[::7]:
        own = [level[image : image + 1] for level in levels]
        box = found.boxes[image : image + 1, place : place + 1]
        region = pyramid_align(own, box, small.SETTINGS.mask_cells, STRIDES)[0]
        logits = detector.parts["mask_head"](region)[0, ..., found.classes[image, place]]
        expected = 1 / (1 + np.exp(-logits.numpy()))
        np.testing.assert_allclose(found.masks[image, place], expected, atol=1e-5)


def test_masks_are_drawn_of_nothing_but_what_is_kept(found, read):
    assert len(read["mask_head"][0]) == np.sum(found.classes >= 0)
    assert [one.shape[1] for one in read["proposals"]] == [16, 8, 4, 2, 1]
    assert len(read["box_head"][0]) == 3 * small.SETTINGS.proposals[1]


def test_an_image_in_which_nothing_is_found_has_no_masks(detector, plain, monkeypatch, eagerly):
    def none(proposed, outputs, sizes):
        shape = (3, 2)
        return Kept(tf.zeros((*shape, 4)), tf.zeros(shape), -tf.ones(shape, tf.int32))

    monkeypatch.setattr(room, "detections", none)
    # Its head reads all the same: without any value there would be no range.
    assert len(detector.inputs_of_parts([plain])["mask_head"][0]) == 6
    assert [len(one.masks) for one in detector.found([plain])] == [0, 0, 0]


@pytest.fixture
def called(monkeypatch):
    """What parts were called with: name, precision and training."""
    calls = []

    def run(self, name, inputs, precision, training):
        calls.append((name, precision, training))
        return Detector.run(self, name, inputs, precision, training)

    monkeypatch.setattr(MaskRCNN, "run", run)
    return calls


def test_every_weight_learns_and_masks_are_those_of_its_box(detector, source, called, monkeypatch):
    batch = next(iter(training_batches(source.split("train"), 2, [64], 64, 0)))
    # Of three classes, the last of which no box has.
    batch["classes"] = tf.where(batch["classes"] >= 0, batch["classes"] % 2, -1)
    learned = []
    monkeypatch.setattr(room, "mask_loss", lambda *a: [learned.append(a), mask_loss(*a)][1])
    # All anchors, so that each level learns.
    settings = dataclasses.replace(small.SETTINGS, sampled_anchors=2048)
    before, detector = detector.get_weights(), MaskRCNN(detector.parts, small.CLASSES, settings)
    with tf.GradientTape() as tape:
        losses = detector.losses_of(batch, None, tf.constant([0, 0], tf.int64))
        total = tf.add_n(list(losses.values()))
    # Its norms have seen these images, which other tests do not expect.
    detector.set_weights(before)
    assert tuple(losses) == detector.LOSSES and np.isfinite(total)
    assert all(precision is None and training for _, precision, training in called)
    ((_, masks, own, regions, positive),) = learned
    assert sum(positive.numpy()) > 1
    classes = set()
    for mask, box, region in zip(masks[positive], own[positive], regions[positive], strict=True):
        ((image, place),) = np.argwhere(np.all(batch["boxes"] == box, axis=-1))
        np.testing.assert_array_equal(mask, batch["masks"][image, place])
        assert pairwise_iou(box[tf.newaxis], region[tf.newaxis]) >= 0.5
        classes.add(int(batch["classes"][image, place]))
    gradients = tape.gradient(total, detector.trainable_variables)
    for variable, gradient in zip(detector.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.any(gradient), variable.path
        if variable.path == "mask_logits/kernel":
            assert set(np.flatnonzero(np.any(gradient, axis=(0, 1, 2)))) == classes


def test_every_pass_hands_its_precision_to_every_part(detector, plain, called):
    precision = Precision(4, 4, ranges="tensor")
    detector.find(plain["images"], plain["sizes"], precision)
    names = ["trunk", *["proposals"] * 5, "box_head", "mask_head"]
    assert called == [(name, precision, False) for name in names]


@pytest.mark.parametrize("float_heads", [False, True])
def test_a_precision_reaches_every_part_and_every_kernel(detector, read, float_heads):
    chosen = small.mask_rcnn(float_heads=True) if float_heads else detector
    precision = Precision(2, 2, ranges="tensor")
    for name, part in chosen.parts.items():
        left = float_heads and name != "trunk"
        kernels = {layer.name for layer in part.layers if hasattr(layer, "kernel")}
        quantized = set(quantizers_of(part, "weight_quantizer"))
        own = {one for one in kernels if one.startswith("pyramid")} if float_heads else set()
        assert quantized == (set() if left else kernels - own)
        for inputs in read[name]:
            exact = tf.nest.flatten(part(inputs))
            coarse = tf.nest.flatten(chosen.run(name, inputs, precision, False))
            for one, other in zip(exact, coarse, strict=True):
                assert np.array_equal(one, other) == left


def test_quantized_after_training_each_part_has_the_ranges_of_what_it_reads(detector, read, plain):
    (bits,) = parse_bit_widths("8w8a")
    quantized = post_training(detector, [plain], Plan())(bits)
    for name, part in detector.parts.items():
        # Of all levels, of which the coarsest has a few values alone.
        exact, rounded = (
            [tf.nest.flatten(run(inputs)) for inputs in read[name]]
            for run in (
                part, lambda x, made=quantized.parts[name]: made(x, precision=Precision(8, 8))
            )
        )  # fmt: skip
        for one, other in zip(zip(*exact, strict=True), zip(*rounded, strict=True), strict=True):
            one, other = (
                np.concatenate([np.ravel(x) for x in several]) for several in (one, other)
            )
            assert 0 < np.std(one - other) < 0.2 * np.std(one), name
    found = quantized.find(plain["images"], plain["sizes"], Precision(8, 8))
    assert found.masks.shape == (3, 100, 8, 8) and np.all(np.isfinite(found.masks))


def test_masks_in_files_are_as_large_as_their_images(detector, monkeypatch, eagerly):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    boxes = tf.constant([[[8.0, 4, 24, 28], [0, 0, 0, 0]]])
    kept = Kept(boxes, tf.constant([[0.9, 0]]), tf.constant([[1, -1]]), tf.ones((1, 2, 8, 8)))
    monkeypatch.setattr(MaskRCNN, "find", lambda *_: kept)
    batch = {
        "images": tf.zeros((1, 64, 64, 1)), "sizes": tf.constant([[60, 40]]),
        "scales": tf.constant([[60 / 30, 40 / 20]]),
    }  # fmt: skip
    (one,) = detector.found([batch])
    np.testing.assert_array_equal(one.boxes, [[4, 2, 12, 14]])
    expected = np.zeros((30, 20))
    expected[4:12, 2:14] = 1
    np.testing.assert_array_equal(coder.decode(one.masks[0]), expected)


def test_masks_are_scored_told_and_drawn_beside_the_boxes(source, tmp_path, monkeypatch):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    split = source.split("test")
    truths = truths_of(split, masks=True)
    perfect = [Detections(t.boxes, np.ones(len(t.boxes)), t.classes, t.masks) for t in truths]
    swapped = [dataclasses.replace(one, masks=one.masks[::-1]) for one in perfect]
    digits = [f"digit {number}" for number in range(10)]
    entries = [{"bits": bits, **scores(truths, found, digits)} for bits, found in (
        ("fp", perfect), ("4w4a", swapped),
    )]  # fmt: skip
    assert [entry["coco"]["AP50"] for entry in entries] == [100, 100]
    assert entries[0]["coco_masks"]["AP50"] == 100 > entries[1]["coco_masks"]["AP50"]
    about = {"dataset": "scenes", "detector": "d", "protocol": "p", "test_images": 3, "classes": 10}
    table = detection_table({**about, "results": entries})
    (row,) = (line for line in table.splitlines() if "COCO masks AP50" in line)
    worse = entries[1]["coco_masks"]["AP50"]
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["100.0", f"{worse:.1f}"]
    by_class = entries[1]["by_class"]
    shown = {name: of["coco_masks"]["AP50"] for name, of in by_class.items()}
    assert list(by_class) == digits and None in shown.values()
    there = [value for value in shown.values() if value is not None]
    assert np.mean(there) == pytest.approx(worse)
    # Of 10 classes each is told, of one or of 21 none; bits of earlier records have no figures.
    first, missing = digits[int(truths[0].classes[0])], next(n for n in digits if shown[n] is None)
    older = {"bits": "8w8a", "coco": entries[0]["coco"], "voc07": entries[0]["voc07"]}
    older["coco_masks"] = entries[0]["coco_masks"]
    table = detection_table({**about, "results": [entries[0], older]}).splitlines()
    for name, told in ((first, ["100.0", "-"]), (missing, ["-", "-"])):
        (row,) = (line for line in table if line.startswith(f"| {name} "))
        assert [cell.strip() for cell in row.split("|")[2:4]] == told
    for count in (1, 21):
        assert first not in detection_table({**about, "classes": count, "results": entries})
    without = [dataclasses.replace(one, masks=None) for one in truths]
    assert set(scores(without, perfect, digits)) == {"coco", "voc07", "by_class"}
    outlines, titles = [], []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda self, title: titles.append(title))
    monkeypatch.setattr(
        "matplotlib.axes.Axes.contour", lambda self, inside, **_: outlines.append(inside)
    )
    draw_found(tmp_path / "f.png", split, truths, {"fp": perfect}, [str(n) for n in range(10)])
    assert len(outlines) == 2 * sum(len(one.boxes) for one in truths)
    assert titles == ["boxes", "fp, score > 0.5"]


def test_one_anchor_size_a_level():
    asked = {"run_dir": "R", "detector": "mask_rcnn"}
    settings = room._settings(detection_from_flat(asked), 96)
    assert settings.anchor_sizes == (12, 24, 48, 96, 192)
    assert settings.of_proposals.sizes == ((12,), (24,), (48,), (96,), (192,))
    large = room._settings(detection_from_flat({**asked, "proposals": 2000}), 800)
    assert large.anchor_sizes == (32, 64, 128, 256, 512) and large.channels == 256
    assert large.proposals == (2000, 2000) and large.proposals_before == (2000, 2000)
    config = detection_from_flat({**asked, "anchor_sizes": "32,64"})
    with pytest.raises(UserError, match=r"--anchor_sizes=32,64 are 2 sizes; allowed .*: 5, one"):
        detector_from(config, small.backbone(), 3, 96)
    assert config.masks and not detection_from_flat({"run_dir": "R"}).masks
