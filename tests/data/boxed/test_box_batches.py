"""Batches of images with boxes, padded to one size."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.box_batches import (
    MASK_SIDE,
    canvas_size,
    padded_together,
    plain_batches,
    resized_shape,
    training_batches,
)
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.order import shuffled_epochs
from tfcq.detection.masks import masks_in
from tfcq.errors import UserError

# Height and width of each image, which is bright in the only box that is no crowd, but for the
# lower right quarter of it: the mask.
SHAPES = [(40, 60), (64, 32), (50, 50), (40, 80), (33, 47), (60, 41)]
BOXES = [
    (4, 8, 20, 40),
    (0, 0, 64, 32),
    (10, 20, 30, 50),
    (8, 0, 24, 40),
    (3, 5, 30, 29),
    (9, 9, 30, 30),
]


@pytest.fixture(scope="module")
def split():
    def example(place):
        height, width = SHAPES[place]
        y1, x1, y2, x2 = BOXES[place]
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2] = 255
        image[(y1 + y2) // 2 : y2, (x1 + x2) // 2 : x2] = 0
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


def test_boxes_and_masks_go_where_the_pixels_go(found):
    flips = []
    for batch in found:
        assert batch["images"].shape == (2, 64, 64, 3)
        assert batch["masks"].shape == (2, 3, MASK_SIDE, MASK_SIDE)
        np.testing.assert_array_equal(batch["classes"], [[2, -1, -1]] * 2)
        assert batch["boxes"][:, 1:].max() == batch["masks"][:, 1:].max() == 0
        for number, index in enumerate(batch["index"]):
            height, width = batch["sizes"][number]
            assert [height, width] in [expected_shape(*SHAPES[index], s, 36) for s in (20, 24)]
            np.testing.assert_allclose(
                batch["scales"][number] * SHAPES[index], [height, width], rtol=1e-6
            )
            image, box = batch["images"][number, ..., 0], batch["boxes"][number, 0]
            assert image[height:].max(initial=0) == image[:, width:].max(initial=0) == 0
            assert 0.9 < image.max() <= 1
            bright = image > 0.5
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            around = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            np.testing.assert_allclose(box, around, atol=0.6)
            canvas = tf.constant([0.0, 0, 64, 64])
            mask = masks_in(batch["masks"][number, :1], box[None], canvas, 64, 64)[0].numpy() > 0.5
            assert np.sum(mask & bright) / np.sum(mask | bright) > 0.8
            # The dark quarter tells whether the image was flipped.
            middle = round((box[1] + box[3]) / 2)
            flips.append(bright[:, middle:].sum() > bright[:, :middle].sum())
    assert 0 < sum(flips) < len(flips) == 18


def test_epochs_hold_every_image_once_and_draw_anew(found):
    orders = np.concatenate([batch["index"] for batch in found]).reshape(3, 6)
    np.testing.assert_array_equal(np.sort(orders), [range(6)] * 3)
    assert len({tuple(order) for order in orders}) == 3
    # Every epoch draws anew whether an image is flipped, and its size.
    columns = {
        tuple(np.concatenate([b["boxes"][:, 0, 1] for b in found[e : e + 3]])[np.argsort(order)])
        for e, order in zip((0, 3, 6), orders, strict=True)
    }
    assert len(columns) == 3


def drawn(split, **options):
    """Returns the seed and the index of each image of two epochs; all draws follow from these."""
    records = shuffled_epochs(split, **options).take(2).flat_map(lambda epoch: epoch)
    return [(tuple(seed), int(one["index"])) for seed, one in records.as_numpy_iterator()]


def test_epochs_begin_anywhere_and_depend_on_the_seed(split):
    whole, within = (
        training_batches(split, 2, [32], 64, seed=3, **begun).take(count)
        for begun, count in (({}, 9), ({"first_epoch": 1, "first_step": 2}, 4))
    )
    for one, other in zip([*whole][5:], within, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(other[name], value, name)
    first = drawn(split, seed=3)
    assert first[6:] == drawn(split, seed=3, first_epoch=1)[:6]
    assert [index for _, index in first] != [index for _, index in drawn(split, seed=4)]
    assert len({seed for seed, _ in first}) == 12


def test_mosaics_are_addressed_as_all_draws_and_leave_the_others_as_they_are(split):
    plain = {"batch_size": 5, "shorter": (20, 48), "longest": 150, "stride": 16}
    given = {**plain, "mosaic": True}
    found, later = batches(split, 3, **given), batches(split, 1, **given, first_epoch=2)
    for one, other in zip(found[2:], later, strict=True):
        assert set(one) == {"images", "sizes", "scales", "index", "boxes", "classes"}
        for name, column in one.items():
            np.testing.assert_array_equal(column, other[name])
    alike = []
    for one, other in zip(found, batches(split, 3, **plain), strict=True):
        # As large as its batch, whose size follows from its images.
        assert one["images"].shape == other["images"].shape and other["images"].shape[1] < 150
        np.testing.assert_array_equal(one["index"], other["index"])
        assert one["classes"].shape == (5, 4 * split.most_boxes)
        for number in range(5):
            same = np.array_equal(one["images"][number], other["images"][number])
            alike.append(same and np.array_equal(one["sizes"][number], other["sizes"][number]))
            if not same:
                np.testing.assert_array_equal(one["sizes"][number], one["images"].shape[1:3])
    assert 3 <= sum(alike) <= 12


def test_plain_images_come_in_order_and_keep_their_sides(split):
    found = list(plain_batches(split, 4, 24, 36).as_numpy_iterator())
    assert [len(batch["images"]) for batch in found] == [4, 2]
    assert np.concatenate([batch["index"] for batch in found]).tolist() == list(range(6))
    assert set(found[0]) == {"images", "sizes", "scales", "index"}
    sizes = np.concatenate([batch["sizes"] for batch in found])
    np.testing.assert_array_equal(sizes, [expected_shape(*shape, 24, 36) for shape in SHAPES])


def test_batches_are_as_large_as_their_own_images_need(split):
    # The third is resized to 136 x 136 pixels, of which no batch is rounded up beyond the limit.
    given = {"batch_size": 2, "shorter": 136, "longest": 136, "stride": 16}
    spec = plain_batches(split, **given).element_spec["images"]
    assert spec.shape.as_list() == [None, None, None, 3]
    found = list(plain_batches(split, **given).as_numpy_iterator())
    whole = padded_together([*plain_batches(split, **given)])
    assert [tuple(batch["images"].shape) for batch in whole] == [(2, 144, 144, 3)] * 3
    for one, other in zip(found, whole, strict=True):
        highest, widest = (
            min(math.ceil(side / 64) * 64, 144) for side in np.max(one["sizes"], axis=0)
        )
        assert one["images"].shape[1:3] == (highest, widest)
        np.testing.assert_array_equal(one["images"], other["images"][:, :highest, :widest])
        assert not np.any(other["images"][:, highest:])
        assert not np.any(other["images"][:, :, widest:])
    assert {batch["images"].shape[1:3] for batch in found} == {(144, 144)}
    given = {"batch_size": 1, "shorter": 60, "longest": 200, "stride": 48}
    shapes = [batch["images"].shape for batch in plain_batches(split, **given)]
    # Of the stride's multiples the first one that is coarse enough.
    assert shapes[:3] == [(1, 96, 96, 3), (1, 192, 96, 3), (1, 96, 96, 3)]


def test_training_batches_of_several_sizes_are_rounded_up_alone(split):
    (spec,) = {
        training_batches(split, 2, shorter, 150, 3, stride=16).element_spec["images"]
        for shorter in ([48], [48, 150])
    }
    assert spec.shape.as_list() == [2, None, None, 3]
    found = batches(split, shorter=(48,), longest=150, stride=16, flip=False)
    sides = {tuple(batch["images"].shape[1:3]) for batch in found}
    assert sides <= {(64, 64), (128, 64), (64, 128), (128, 128)} and len(sides) > 1
    for batch in found:
        assert np.all(np.max(batch["sizes"], axis=0) > np.array(batch["images"].shape[1:3]) - 64)


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
