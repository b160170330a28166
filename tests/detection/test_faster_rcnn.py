"""Faster R-CNN: what its parts compute, learn from and hand each other."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
import tfcq.detection.run
import tfcq.nn.summary
from tests.detection import small
from tfcq import detect as command
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.data.boxed.box_batches import plain_batches, training_batches
from tfcq.detection.box_head import Regions, box_losses
from tfcq.detection.boxes import HEAD_WEIGHTS, encode
from tfcq.detection.faster_rcnn import FasterRCNN
from tfcq.detection.parts import any_size, trunk_and_last_stage
from tfcq.detection.region_proposals import ProposalSettings, Proposed, proposals
from tfcq.detection.suppression import Kept
from tfcq.errors import TrainingStopped, UserError
from tfcq.settings.policies import ALL_FLOAT


@pytest.fixture(scope="module")
def batch():
    return next(iter(training_batches(small.scenes().split("train"), 2, [64], 64, 0, stride=16)))


@pytest.fixture(scope="module")
def plain():
    return next(iter(plain_batches(small.scenes().split("test"), 2, 64, 64, 16)))


def test_trunk_and_last_stage_compute_the_backbone_at_any_size():
    model = small.backbone()
    trunk, stage = trunk_and_last_stage(any_size(model))
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 1)).astype("float32")
    pooled = np.mean(stage(trunk(images)), axis=(1, 2))
    np.testing.assert_allclose(pooled, model(images), rtol=1e-6)
    assert trunk(np.zeros((1, 48, 80, 1), "float32")).shape == (1, 3, 5, 16)


def test_float_detections_are_those_of_the_float_networks_to_the_last_bit(plain):
    detector = small.faster_rcnn()
    found = detector.find(plain["images"], plain["sizes"])
    floats = {name: small.in_float(part) for name, part in detector.parts.items()}
    plainly = FasterRCNN(floats, small.CLASSES, small.SETTINGS)
    for one, other in zip(found, plainly.find(plain["images"], plain["sizes"]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(found.scores > 0)


def test_one_graph_finds_in_images_of_any_size_what_is_found_without_one(plain):
    detector = small.faster_rcnn()
    rows = {**plain, "images": plain["images"][:, :48], "sizes": tf.constant([[48, 60]] * 2)}
    found = iter(detector.found([plain, rows]))
    for batch in (plain, rows):
        expected = detector.find(batch["images"], batch["sizes"])
        for scores, classes in zip(expected.scores.numpy(), expected.classes, strict=True):
            np.testing.assert_allclose(next(found).scores, scores[classes >= 0], rtol=1e-5)


@pytest.mark.parametrize("head_policy", [None, ALL_FLOAT])
def test_a_precision_reaches_every_part_that_is_quantized(plain, head_policy):
    detector = small.faster_rcnn(head_policy=head_policy)
    read = detector.inputs_of_parts([plain])
    for name, part in detector.parts.items():
        inputs = read[name][0]
        tfcq.calibrate(part, np.clip(inputs, 0, 1)) if name == "trunk" else part(
            inputs, precision=tfcq.RecordRanges(reset=True)
        )
        exact = tf.nest.flatten(part(inputs))
        coarse = tf.nest.flatten(part(inputs, precision=tfcq.Precision(2, 2)))
        for one, other in zip(exact, coarse, strict=True):
            same = np.array_equal(one, other)
            assert same == (name == "proposals" and head_policy is not None)


def test_the_heads_alone_stay_in_float_where_the_backbone_is_quantized():
    parts = small.faster_rcnn(head_policy=ALL_FLOAT).parts
    found = {
        row.layer: row.weights for part in parts.values()
        for row in tfcq.nn.summary.layer_summaries(part)
    }  # fmt: skip
    assert found["stem"] == "8 bits" and found["stage4_block1_conv1"] != "float"
    assert {n for n, bits in found.items() if bits == "float" and "norm" not in n} >= {
        "proposals", "proposals_objectness", "proposals_changes", "box_classes", "box_changes"
    }  # fmt: skip


def test_every_norm_moves_as_those_of_the_published_networks():
    norms = [
        layer
        for part in small.faster_rcnn().parts.values()
        for layer in part.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


def test_every_weight_learns(batch):
    detector = small.faster_rcnn()
    with tf.GradientTape() as tape:
        losses = detector.losses_of(batch, None, tf.constant([0, 0], tf.int64))
        total = tf.add_n(list(losses.values()))
    assert tuple(losses) == detector.LOSSES and np.isfinite(total)
    gradients = tape.gradient(total, detector.trainable_variables)
    for variable, gradient in zip(detector.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.any(gradient), variable.path


def test_the_best_anchor_is_the_first_proposal_cut_at_its_image():
    settings = ProposalSettings(((16.0,),), (16,), kept=(4, 3), before=(8, 8))
    grid = tf.constant([[-8, -8, 8, 8], [8, 8, 24, 24], [40, 8, 56, 24]], tf.float32)
    made = Proposed([grid], [tf.constant([[0.1, 0.2, 0.3]])], [tf.zeros((1, 3, 4))])
    kept = proposals(made, tf.constant([[20, 30]]), settings, training=False)
    # The third lies below the image, which leaves nothing of it.
    np.testing.assert_allclose(kept.boxes[0, :2], [[8, 8, 20, 24], [0, 0, 8, 8]])
    assert kept.classes.numpy().tolist() == [[0, 0, -1]]


def test_box_losses_are_means_over_all_regions():
    truth = tf.constant([[[0, 0, 10, 10]]], tf.float32)
    near = tf.constant([[[0, 0, 10, 8], [30, 30, 40, 40]]], tf.float32)
    regions = Regions(
        Kept(near, tf.ones((1, 2)), tf.zeros((1, 2), tf.int32)), truth,
        tf.constant([[1]]), 2, 4, tf.constant([1, 0], tf.int64),
    )  # fmt: skip
    # Near and true box, of which a quarter of four is taken; one elsewhere.
    assert regions.there.numpy().sum() == 2 and regions.positive.numpy().sum() == 1
    logits = tf.math.log(tf.tile(tf.constant([[0.2, 0.5, 0.3]]), [4, 1]))
    losses = box_losses(regions, (logits, tf.zeros((4, 8))), truth)
    np.testing.assert_allclose(losses["classes"], -(np.log(0.5) + np.log(0.3)) / 2, rtol=1e-6)
    chosen = tf.boolean_mask(regions.boxes, regions.positive)
    expected = np.sum(np.abs(encode(truth[0], chosen, HEAD_WEIGHTS))) / 2
    assert expected > 0
    np.testing.assert_allclose(losses["boxes"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: small.backbone(stem="cifar"), "has the stem for small images.*--stem=imagenet"),
        (lambda: mobilenet_v2(input_shape=(32, 32, 1)), "no four stages.* allowed: resnet18"),
    ],
)
def test_a_backbone_that_cannot_detect_is_refused(make, told):
    with pytest.raises(UserError, match=told):
        any_size(make())


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Flags of a detection on a few scenes, and a backbone; graphs would take longer to build."""
    opened = lambda *_, **__: small.scenes(train=8, test=3)  # noqa: E731
    monkeypatch.setattr("tfcq.detection.boxed_data.open_boxes", opened)
    monkeypatch.setattr(
        "tfcq.detection.faster_rcnn._settings", lambda config, shorter: small.SETTINGS
    )
    tf.config.run_functions_eagerly(True)
    tfcq.quantizable(small.backbone()).save(tmp_path / "backbone.keras")
    yield {
        "model": tmp_path / "backbone.keras", "output_dir": tmp_path / "out", "epochs": 2,
        "batch_size": 4, "warmup": "0epochs", "bits": "fp,8w8a", "pictures": 2,
    }  # fmt: skip
    tf.config.run_functions_eagerly(False)


def run(**flags):
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    command.main(command.flag_set().parse(arguments))


def test_a_detector_that_was_cut_off_ends_as_one_that_was_not(few, tmp_path, monkeypatch, capsys):
    seen, found_at = {}, tfcq.detection.run.found_at

    def looked_at(detector, plain, bits):
        seen[str(bits)] = found_at(detector, plain, bits)
        return seen[str(bits)]

    with monkeypatch.context() as patch:
        patch.setattr("tfcq.detection.run.found_at", looked_at)
        run(**few)
    table = capsys.readouterr().out
    assert "| COCO AP50  |" in table and "VOC07 AP" in table
    # Each bit-width was scored at its own precision.
    assert not np.array_equal(seen["fp"][0].boxes, seen["8w8a"][0].boxes)
    record = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert [entry["bits"] for entry in record["results"]] == ["fp", "8w8a"]
    assert (tmp_path / "out" / "finetune_fp_8w8a.png").stat().st_size > 1000
    assert record["class_names"] == [str(number) for number in range(10)]
    assert list(record["results"][1]["by_class"]) == record["class_names"]
    step, taken = FasterRCNN.train_step, []

    def cut_off(self, data):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(1)
        return step(self, data)

    other = {
        **few, "output_dir": tmp_path / "other", "bits": "fp", "pictures": 0,
        "save_every": "1steps",
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(FasterRCNN, "train_step", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(**other)
    run(**other)
    for name in ("trunk", "proposals", "box_head"):
        one, two = (
            keras.models.load_model(tmp_path / folder / f"{name}.keras").get_weights()
            for folder in ("out", "other")
        )
        for a, b in zip(one, two, strict=True):
            # Threads sum in any order; --deterministic repeats to the last bit.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    about = tmp_path / "out" / "detector.json"
    written = about.read_text()
    # What an earlier version trained gets it when it is run again.
    about.unlink()
    # Bits that are measured later stand beside those of before.
    capsys.readouterr()
    run(**{**few, "bits": "4w4a", "export_bits": "4w8a", "save_detections": True})
    told = capsys.readouterr().out
    assert "Int8 files at 4w8a (policy int8, not --policy=paper), and the gate" in told
    assert told.count(" passed |") == 3
    assert about.read_text() == written
    loaded = tfcq.load_detector(tmp_path / "out")
    assert (loaded.shorter_side, loaded.longest_side, loaded.trained_at) == (64, 1333, None)
    assert loaded.class_names == tuple(map(str, range(10)))
    found = json.loads((tmp_path / "out" / "detections_4w4a.json").read_text())
    assert {one["image_id"] for one in found} == {0, 1, 2}
    written = sorted(path.name for path in (tmp_path / "out" / "int8").iterdir())
    assert written == ["box_head_4x4_4w8a.tflite", "gate_4w8a.json", "proposals_4x4_4w8a.tflite",
                       "trunk_64x64_4w8a.tflite"]  # fmt: skip
    record = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert [entry["bits"] for entry in record["results"]] == ["fp", "8w8a", "4w4a"]
    with pytest.raises(UserError, match=r"holds another detector \(learning_rate: 0.05 -> 0.1\)"):
        run(**few, learning_rate=0.1)
    # Other steps after training have a record of their own, and nothing is trained again.
    run(**{**few, "calibration_images": 3, "quantize": "backbone", "bits": "2w2a"})
    assert "trained already" in capsys.readouterr().out
    file = "finetune_calibration_images=3_quantize=backbone.json"
    other = json.loads((tmp_path / "out" / file).read_text())
    assert other["weights"] == record["weights"]


def test_quantization_aware_training_goes_on_from_the_float_detector(few, tmp_path, capsys):
    later = {**few, "protocol": "qat", "bits": "2w4a", "epochs": 1, "quantize": "backbone"}
    del later["warmup"]
    with pytest.raises(UserError, match="holds no trained detector.*--protocol=finetune"):
        run(**later)
    run(**{**few, "epochs": 1, "bits": "fp", "pictures": 0})
    with pytest.raises(UserError, match="holds another detector .anchor_sizes: None -> '8'"):
        run(**later, anchor_sizes="8")
    run(**later)
    # Nobody asked for one that is longer than the training.
    assert "Warm-up of 0 steps instead of 100: the training has 2 (" in capsys.readouterr().out
    folder = tmp_path / "out" / "qat_lsq_backbone"
    assert json.loads((folder / "qat.json").read_text())["results"][0]["bits"] == "2w4a"
    assert str(tfcq.load_detector(folder / "2w4a").trained_at) == "2w4a"
    trained = keras.models.load_model(folder / "2w4a" / "trunk.keras")
    before = keras.models.load_model(tmp_path / "out" / "trunk.keras")
    kernel = trained.get_layer("stage1_block1_conv1").kernel
    assert not np.array_equal(kernel, before.get_layer("stage1_block1_conv1").kernel)
    assert trained.get_layer("stage1_block1_conv1").weight_quantizer.__class__.__name__[:3] == "LSQ"


def test_a_refused_start_leaves_its_folder_to_another_and_one_that_diverges_does_not(few, tmp_path):
    with pytest.raises(UserError, match="Warm-up of 9 steps in 2"):
        run(**{**few, "warmup": "9steps", "epochs": 1})
    with pytest.raises(TrainingStopped, match="The loss became nan at step .*--learning_rate"):
        run(**{**few, "clip_gradient": 0, "learning_rate": 1e30})
    assert not (tmp_path / "out" / "trunk.keras").exists()
    with pytest.raises(UserError, match="holds another detector"):
        run(**few)


def test_images_of_other_channels_are_refused(few, tmp_path):
    tfcq.quantizable(small.backbone(channels=3)).save(tmp_path / "backbone.keras")
    with pytest.raises(UserError, match="have 1 channels; the backbone of .* takes 3"):
        run(**few)
