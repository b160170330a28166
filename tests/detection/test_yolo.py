"""YOLOv4: its network, what it finds, and its precision."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.resnet import resnet
from tfcq.detection.yolo import Yolo, YoloSettings, yolo_network, yolov4
from tfcq.detection.yolo_targets import assigned, cells
from tfcq.nn.quantizable import quantizable, quantizers_of
from tfcq.post_training.graph import parts_of
from tfcq.post_training.plan import Plan, check_plan
from tfcq.quantization.precision import Precision
from tfcq.settings.detection import detection_from_flat

SETTINGS = YoloSettings(tuple((h / 6, w / 6) for h, w in YoloSettings().shapes))
SIZES = tf.constant([[64, 96], [60, 90]])


@pytest.fixture(scope="module")
def network():
    """The float network, with features that pass every block, as trained ones do."""
    backbone = resnet(18, "imagenet", 4, (64, 64, 1), (1, 1, 1, 1), zero_init_residual=False)
    made = yolo_network(backbone, 3, SETTINGS)
    draws = np.random.default_rng(0)
    for layer in made.layers:
        if layer.name.endswith("_logits"):
            layer.kernel.assign(draws.normal(0, 0.3, layer.kernel.shape))
    return made


@pytest.fixture(scope="module")
def detector(network):
    return Yolo({"network": quantizable(network, "paper")}, 3, SETTINGS)


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.random.default_rng(1).random((2, 64, 96, 1)), tf.float32)


def test_float_detections_are_those_of_the_float_network_and_precision_is_not_ignored(
    network, detector, images
):
    outputs = network(images, training=False)
    np.testing.assert_array_equal(detector.run("network", images, None, False), outputs)
    found = detector.find(images, SIZES)
    quantized = detector.find(images, SIZES, Precision(2, 2, "tensor"))
    assert (found.classes.numpy() >= 0).any()
    assert (found.scores.numpy() != quantized.scores.numpy()).any()
    for bits in (Precision(2, 8, "tensor"), Precision(8, 2, "tensor")):
        assert np.any(detector.run("network", images, bits, False) != outputs)


def test_outputs_leave_the_network_as_they_are_computed(detector, images):
    quantizers = quantizers_of(detector.network_part, "quantizer")
    assert not [name for name in quantizers if "logits" in name or "outputs" in name]
    # At 2 bits, tensors on a grid would hold 4 values.
    outputs = detector.run("network", images, Precision(2, 2, "tensor"), False).numpy()
    assert len(np.unique(outputs)) > 100


def test_of_the_backbone_alone_neck_and_outputs_stay_in_float(network):
    part = quantizable(network, "paper", overrides=dict.fromkeys(Yolo.HEADS, "fp"))
    for attribute in ("weight_quantizer", "quantizer"):
        names = set(quantizers_of(part, attribute))
        assert names and all(name.startswith(("stem", "stage")) for name in names)
    # Every feature that the neck reads is quantized.
    ends = {f"stage{stage}_block1_relu_quantizer" for stage in (2, 3, 4)}
    assert ends <= set(quantizers_of(part, "quantizer"))


def test_every_step_after_training_can_be_taken(detector):
    plan = Plan(
        equalize=True, mixed_precision=True, weight_scales="mse", rounding="adaround",
        reestimate_batch_norm=True, correct_biases=True,
    )  # fmt: skip
    check_plan(detector.network_part, plan)
    parts = [layer.name for part in parts_of(detector.network_part) for layer in part.kernels]
    assert set(parts) == set(quantizers_of(detector.network_part, "weight_quantizer"))


def test_what_a_perfect_network_says_is_found(detector, images, monkeypatch):
    boxes = np.array([[[3, 5, 30, 40], [20, 40, 64, 90]], [[9, 9, 20, 30], [0] * 4]], np.float32)
    classes = np.array([[2, 0], [1, -1]])
    size = tf.constant([64, 96])
    learn = assigned(tf.constant(boxes), tf.constant(classes >= 0), size, SETTINGS.shapes)
    of = cells(size, SETTINGS.shapes)
    outputs = np.full((2, len(of.corners), 8), -20, np.float32)
    for image, number, shape in np.argwhere(learn.there):
        place, box = learn.anchors[image, number, shape], boxes[image, number]
        centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        reach = of.reaches[place].numpy()
        share = ((centre - of.corners[place]) / of.strides[place] + (reach - 1) / 2) / reach
        changes = [*np.log(share / (1 - share)), *np.log(sides / of.shapes[place])]
        outputs[image, place, :5] = *changes, 20
        outputs[image, place, 5 + classes[image, number]] = 20
    monkeypatch.setattr(detector, "run", lambda *_, **__: tf.constant(outputs))
    found = detector.find(images, tf.constant([[64, 96], [15, 96]]))
    boxes[1, 0, 2] = 15  # What is beyond the image is cut off.
    for image in range(2):
        there = found.classes[image].numpy() >= 0
        kept = np.c_[found.boxes[image].numpy()[there], found.classes[image].numpy()[there]]
        wanted = np.c_[boxes[image], classes[image]][classes[image] >= 0]
        order = np.argsort(kept[:, -1]), np.argsort(wanted[:, -1])
        np.testing.assert_allclose(kept[order[0]], wanted[order[1]], atol=1e-3)


def test_small_images_have_their_boxes_learned_in_the_finest_cells():
    config = detection_from_flat({"run_dir": "run", "detector": "yolov4"})
    backbone = resnet(18, "imagenet", 4, (96, 96, 1), (1, 1, 1, 1))
    shapes = yolov4(config, backbone, 3, 96).settings.shapes
    # Items of scenes: a sixth to half of 96 pixels, a digit at least half as wide as high.
    sides = tf.constant([[high, wide * high] for high in (16.0, 32.0, 48.0) for wide in (0.5, 1)])
    boxes = tf.concat([40 - sides / 2, 40 + sides / 2], axis=1)[tf.newaxis]
    learn = assigned(boxes, tf.ones([1, 6], tf.bool), tf.constant([96, 96]), shapes)
    assert np.any(learn.there[..., :3], axis=-1).all()


def test_all_variables_learn(detector, images):
    batch = {
        "images": images, "sizes": SIZES,
        "boxes": tf.constant([[[3.0, 5, 30, 40], [10, 20, 60, 80]]] * 2),
        "classes": tf.constant([[2, 0], [1, -1]]),
    }  # fmt: skip
    with tf.GradientTape() as tape:
        losses = detector.losses_of(batch, Precision(4, 4, "tensor"), tf.constant([0, 0]))
        total = tf.add_n(list(losses.values()))
    assert tuple(losses) == Yolo.LOSSES
    variables = detector.trainable_variables
    gradients = tape.gradient(total, [variable.value for variable in variables])
    still = [
        v.path for v, g in zip(variables, gradients, strict=True) if g is None or not np.any(g)
    ]
    assert still == []
