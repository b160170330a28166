"""What YOLOv4's anchors mean, which of them learn, and the losses: against loops over anchors."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection.boxes import complete_iou, pairwise_iou
from tfcq.detection.yolo_targets import assigned, cells, decoded, yolo_losses

SIZE = (64, 96)
SHAPES = ((5, 4), (8, 12), (14, 9), (16, 30), (24, 20), (20, 44), (40, 30), (60, 40), (50, 90))
STRIDES, REACHES = (8, 16, 32), (1.2, 1.1, 1.05)


def places():
    """Yields level, row, column and shape of every anchor in the order of the outputs."""
    for level, stride in enumerate(STRIDES):
        for row in range(SIZE[0] // stride):
            for column in range(SIZE[1] // stride):
                for number in range(3):
                    yield level, row, column, 3 * level + number


@pytest.fixture(scope="module")
def batch():
    """Boxes of two images, the second of which has one, and what fills up."""
    boxes = np.array(
        [
            [[3, 5, 30, 40], [10, 20, 14, 25], [0, 0, 64, 96], [44, 66, 84, 126]],
            [[17, 40, 33, 71], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        np.float32,
    )
    classes = np.array([[2, 0, 1, 1], [0, -1, -1, -1]], np.int32)
    return boxes, classes


def test_boxes_are_decoded_anchor_by_anchor():
    outputs = np.random.default_rng(0).normal(size=(1, len(list(places())), 4)).astype(np.float32)
    outputs[0, 7] = 9.0, -9.0, 9.0, 1.0
    found = decoded(outputs, cells(tf.constant(SIZE), SHAPES))[0].numpy()
    for (level, row, column, shape), (y, x, h, w), box in zip(
        places(), outputs[0], found, strict=True
    ):
        stride, reach = STRIDES[level], REACHES[level]
        centre = [
            stride * (cell + reach / (1 + math.exp(-change)) - (reach - 1) / 2)
            for cell, change in ((row, y), (column, x))
        ]
        sides = [
            side * min(math.exp(change), 1000 / 16)
            for side, change in zip(SHAPES[shape], (h, w), strict=True)
        ]
        wanted = [c - s / 2 for c, s in zip(centre, sides, strict=True)]
        wanted += [c + s / 2 for c, s in zip(centre, sides, strict=True)]
        np.testing.assert_allclose(box, wanted, rtol=1e-4, atol=1e-4)


def teachers(boxes, classes):
    """Returns pairs (anchor, box) of an image by a loop over anchors and boxes."""
    pairs = set()
    for place, (level, row, column, shape) in enumerate(places()):
        for number, (box, of_class) in enumerate(zip(boxes, classes, strict=True)):
            sides = box[2:] - box[:2]
            overlaps = []
            for h, w in SHAPES:
                common = min(h, sides[0]) * min(w, sides[1])
                overlaps.append(common / (h * w + sides[0] * sides[1] - common))
            centre, stride = (box[:2] + box[2:]) / 2, STRIDES[level]
            cell = tuple(
                min(int(c // stride), s // stride - 1) for c, s in zip(centre, SIZE, strict=True)
            )
            fits = overlaps[shape] > 0.213 or shape == int(np.argmax(overlaps))
            if of_class >= 0 and cell == (row, column) and fits:
                pairs.add((place, number))
    return pairs


def test_anchors_learn_in_the_cell_of_a_centre_by_the_best_shape_and_those_alike(batch):
    boxes, classes = batch
    learn = assigned(tf.constant(boxes), tf.constant(classes >= 0), tf.constant(SIZE), SHAPES)
    for image in range(2):
        numbers, columns = np.nonzero(learn.there[image])
        found = list(zip(learn.anchors.numpy()[image, numbers, columns], numbers, strict=True))
        assert len(found) == len(set(found)) and set(found) == teachers(
            boxes[image], classes[image]
        )
    # A shape that none resembles has its best anchor nonetheless.
    odd = assigned(
        tf.constant([[[0.0, 0, 1, 90]]]), tf.constant([[True]]), tf.constant(SIZE), SHAPES
    )
    assert np.sum(odd.there) == 1


def test_losses_are_those_of_loops_over_anchors(batch):
    boxes, classes = batch
    draws = np.random.default_rng(1)
    outputs = draws.normal(size=(2, len(list(places())), 5 + 3)).astype(np.float32)
    # The cell above the one that learns from the third box finds it too, and need not say that
    # there is nothing.
    above = list(places()).index((2, 0, 1, 8))
    within = (1 + (1.05 - 1) / 2) / 1.05
    outputs[0, above, :4] = math.log(within / (1 - within)), 0, math.log(64 / 50), math.log(96 / 90)
    found = decoded(outputs[..., :4], cells(tf.constant(SIZE), SHAPES))
    np.testing.assert_allclose(found[0, above], boxes[0, 2], atol=1e-3)
    pairs = [teachers(b, c) for b, c in zip(boxes, classes, strict=True)]

    def entropy(logit, label):
        return math.log1p(math.exp(-logit if label else logit))

    sums, count, ignored = {"objectness": 0.0, "boxes": 0.0, "classes": 0.0}, 0, 0
    for image in range(2):
        taught = {place for place, _ in pairs[image]}
        overlaps = pairwise_iou(found[image], tf.constant(boxes[image])).numpy().max(axis=1)
        for place, logits in enumerate(outputs[image]):
            if place in taught or overlaps[place] <= 0.7:
                sums["objectness"] += entropy(logits[4], place in taught)
            else:
                ignored += 1
        for place, number in pairs[image]:
            count += 1
            fit = complete_iou(found[image, place], tf.constant(boxes[image, number]))
            sums["boxes"] += 1 - float(fit)
            for of_class, logit in enumerate(outputs[image, place, 5:]):
                sums["classes"] += entropy(logit, of_class == classes[image, number])
    assert ignored > 0
    losses = yolo_losses(
        outputs, tf.constant(boxes), tf.constant(classes), tf.constant(SIZE), SHAPES
    )
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {name: value / count for name, value in sums.items()}, rel=1e-4
    )


def test_images_without_a_box_teach_objectness_alone(batch):
    boxes, classes = batch
    outputs = tf.Variable(tf.zeros([2, len(list(places())), 8]))
    with tf.GradientTape() as tape:
        losses = yolo_losses(
            outputs, tf.constant(0 * boxes), tf.constant(0 * classes - 1), tf.constant(SIZE), SHAPES
        )
        total = tf.add_n(list(losses.values()))
    gradient = np.asarray(tape.gradient(total, outputs))
    assert float(losses["boxes"]) == float(losses["classes"]) == 0 and np.isfinite(gradient).all()
    assert np.unique(np.nonzero(gradient)[2]).tolist() == [4]
