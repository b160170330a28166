"""Batches of images with boxes, at one size."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.box_batches import (
    MASK_SIDE,
    canvas_size,
    plain_batches,
    resized_shape,
    training_batches,
)
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.errors import UserError

# Height and width of each image, which is bright in its only box that is no crowd.
SHAPES = [(40, 60), (64, 32), (50, 50), (40, 80), (33, 47), (60, 41)]
BOXES = [
    (4, 8, 20, 40),
    (0, 0, 64, 32),
    (10, 20, 30, 50),
    (8, 0, 24, 40),
    (3, 5, 30, 9),
    (9, 9, 30, 30),
]


@pytest.fixture(scope="module")
def split():
    def example(place):
        height, width = SHAPES[place]
        y1, x1, y2, x2 = BOXES[place]
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2] = 255
        mask = image[:, :, 0] // 255
        return image, np.float32([[0, 0, 5, 5], BOXES[place]]), np.stack([mask, mask])

    def decode(record):
        image, boxes, masks = tf.numpy_function(
            example, [record["index"]], [tf.uint8, tf.float32, tf.uint8]
        )
        return {
            "index": record["index"], "image": tf.ensure_shape(image, [None, None, 3]),
            "boxes": tf.ensure_shape(boxes, [None, 4]), "classes": tf.constant([5, 2], tf.int64),
            "difficult": tf.constant([False, True]), "crowd": tf.constant([True, False]),
            "area": tf.zeros([2]), "masks": tf.ensure_shape(masks, [None, None, None]),
        }  # fmt: skip

    return BoxedSplit(
        name="train", size=len(SHAPES), image_shape=(None, None, 3), class_names=("a", "b", "c"),
        records=tf.data.Dataset.range(len(SHAPES)).map(lambda index: {"index": index}),
        decode=decode, record_bytes=8, most_boxes=3, masks=True,
    )  # fmt: skip


def batches(split, count=6, **options):
    given = {"batch_size": 2, "shorter": (20, 24), "longest": 36, "seed": 3, **options}
    return list(training_batches(split, **given).take(count).as_numpy_iterator())


@pytest.fixture(scope="module")
def found(split):
    """Three epochs."""
    return batches(split, 9)


def expected_shape(height, width, shorter, longest):
    """What detectron2's ResizeShortestEdge computes."""
    scale = shorter / min(height, width)
    sides = (shorter, scale * width) if height < width else (scale * height, shorter)
    if max(sides) > longest:
        sides = [side * (longest / max(sides)) for side in sides]
    return [int(side + 0.5) for side in sides]


def test_sizes_are_detectron2s():
    for height, width in SHAPES + [(480, 640), (375, 500), (1, 900), (427, 640), (500, 333)]:
        for shorter in (20, 480, 608, 800):
            found = resized_shape(height, width, shorter, 1333)
            expected = expected_shape(height, width, shorter, 1333)
            np.testing.assert_array_equal(found, expected, str((height, width, shorter)))


def test_boxes_go_where_the_pixels_go(found):
    flipped = 0
    for batch in found:
        assert batch["images"].shape == (2, 64, 64, 3)
        np.testing.assert_array_equal(batch["classes"], [[2, -1, -1]] * 2)
        np.testing.assert_array_equal(batch["boxes"][:, 1:], np.zeros((2, 2, 4)))
        for number, index in enumerate(batch["index"]):
            height, width = batch["sizes"][number]
            possible = [expected_shape(*SHAPES[index], s, 36) for s in (20, 24)]
            assert [height, width] in possible
            np.testing.assert_allclose(
                batch["scales"][number] * SHAPES[index], [height, width], rtol=1e-6
            )
            y1, x1, y2, x2 = batch["boxes"][number, 0]
            # A pixel is as bright as the share of it that lies in the box.
            rows, columns = (
                np.clip(np.minimum(np.arange(64) + 1, b) - np.maximum(np.arange(64), a), 0, 1)
                for a, b in ((y1, y2), (x1, x2))
            )
            image = batch["images"][number, ..., 0]
            assert np.abs(image - np.outer(rows, columns)).max() < 0.5
            assert image[height:].max(initial=0) == image[:, width:].max(initial=0) == 0
            assert image.max() > 0.9 and image.max() <= 1
            plain = BOXES[index][1] * batch["scales"][number, 1]
            flipped += abs(x1 - plain) > 0.01
    assert 0 < flipped < 18


def test_masks_are_as_large_as_their_boxes(found):
    for batch in found:
        assert batch["masks"].shape == (2, 3, MASK_SIDE, MASK_SIDE)
        # Its border is read half from outside, where a box has fewer pixels than its mask.
        assert batch["masks"][:, 0].min() >= 0.25 and batch["masks"][:, 0].mean() > 0.95
        assert batch["masks"][:, 1:].max() == 0


def test_masks_are_flipped_with_their_image(split):
    def half(record):
        """The upper left quarter of each box."""
        record = split.decode(record)
        box = record["boxes"][1]
        shape = tf.cast(tf.shape(record["image"]), tf.float32)
        rows, columns = (tf.range(shape[axis]) < (box[axis] + box[axis + 2]) / 2 for axis in (0, 1))
        mask = rows[:, None] & columns[None] & (record["masks"][1] > 0)
        return {**record, "masks": tf.cast(tf.stack([mask, mask]), tf.uint8)}

    found = batches(dataclasses.replace(split, decode=half), flip=True)
    sides = set()
    for batch in found:
        for number, index in enumerate(batch["index"]):
            mask = batch["masks"][number, 0] > 0.5
            upper, left = mask[: MASK_SIDE // 2], mask[:, : MASK_SIDE // 2]
            assert upper.sum() > 0.9 * mask.sum() > 0.2 * mask.size
            plain = BOXES[index][1] * batch["scales"][number, 1]
            is_flipped = abs(batch["boxes"][number, 0, 1] - plain) > 0.01
            if index != 1:  # Its box is as wide as the image, flipped or not.
                assert (left.sum() < 0.1 * mask.sum()) == is_flipped
                sides.add(is_flipped)
    assert sides == {True, False}


def test_epochs_hold_every_image_once_and_begin_anywhere(split, found):
    orders = np.concatenate([batch["index"] for batch in found]).reshape(3, 6)
    np.testing.assert_array_equal(np.sort(orders), [range(6)] * 3)
    assert len({tuple(order) for order in orders}) == 3
    # Every epoch draws anew whether an image is flipped, and its size.
    columns = {
        tuple(np.concatenate([b["boxes"][:, 0, 1] for b in found[e : e + 3]])[np.argsort(order)])
        for e, order in zip((0, 3, 6), orders, strict=True)
    }
    assert len(columns) == 3
    for one, other in zip(found[3:], batches(split, first_epoch=1), strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
    others = batches(split, 3, seed=4)
    assert any((a["index"] != b["index"]).any() for a, b in zip(found[:3], others, strict=True))


def test_plain_images_come_in_order_and_keep_their_sides(split):
    found = list(plain_batches(split, 4, 24, 36).as_numpy_iterator())
    assert [len(batch["images"]) for batch in found] == [4, 2]
    assert np.concatenate([batch["index"] for batch in found]).tolist() == list(range(6))
    assert set(found[0]) == {"images", "sizes", "scales", "index"}
    sizes = np.concatenate([batch["sizes"] for batch in found])
    np.testing.assert_array_equal(sizes, [expected_shape(*shape, 24, 36) for shape in SHAPES])


def test_batches_are_no_larger_than_images_of_one_size_need(split):
    square = dataclasses.replace(split, image_shape=(96, 96, 3))
    assert canvas_size(square, [96], 96, 32) == (96, 96)
    wide = dataclasses.replace(split, image_shape=(90, 180, 3))
    assert canvas_size(wide, [45, 60], 100, 16) == (64, 112)
    assert canvas_size(split, [800], 1333, 32) == (1344, 1344)
    with pytest.raises(UserError, match="Images of 900 pixels at the shorter side, 800 at most"):
        canvas_size(split, [900], 800, 32)
    with pytest.raises(UserError, match="a stride of 0 pixels; allowed: 1 and above"):
        plain_batches(split, 2, 20, 36, stride=0)
    with pytest.raises(UserError, match="batch_size=7 with 6 images"):
        training_batches(split, 7, [20], 36, 0)
