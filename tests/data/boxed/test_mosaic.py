"""Mosaics: against a loop over pixels and boxes."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.mosaic import with_mosaics

HEIGHT, WIDTH, MOST = 20, 30, 2
# Of each image without padding: larger and smaller than the part of a mosaic that is its own.
SIZES = [(20, 30), (12, 30), (20, 9), (7, 8), (19, 25)]


def batch(seed):
    """Returns images of pixels that are all different, with a box each or two."""
    draws = np.random.default_rng(seed)
    images = np.zeros((len(SIZES), HEIGHT, WIDTH, 1), np.float32)
    boxes = np.zeros((len(SIZES), MOST, 4), np.float32)
    classes = np.full((len(SIZES), MOST), -1, np.int32)
    for number, (height, width) in enumerate(SIZES):
        images[number, :height, :width, 0] = draws.random((height, width))
        for place in range(1 + number % MOST):
            y, x = (np.sort(draws.uniform(0, side, 2)) for side in (height, width))
            boxes[number, place], classes[number, place] = (y[0], x[0], y[1], x[1]), 3 + number
    return {
        "images": images, "sizes": np.int32(SIZES), "scales": np.ones((len(SIZES), 2), np.float32),
        "index": np.arange(len(SIZES)), "boxes": boxes, "classes": classes,
        "seed": draws.integers(0, 2**40, (len(SIZES), 2)),
    }  # fmt: skip


def mosaic(given, number):
    """Returns image, boxes with their classes, and how much is left of all boxes, by a loop."""
    count = len(SIZES)
    draws = tf.random.stateless_uniform([2 + count], given["seed"][number], alg="philox").numpy()
    if draws[0] >= 0.5:  # No mosaic.
        return None
    cut = [int((0.2 + 0.6 * draws[1 + axis]) * side) for axis, side in enumerate((HEIGHT, WIDTH))]
    ranked = [1 + int(place) for place in np.argsort(-draws[3:])][:3]
    of = [number, *((number + place) % count for place in ranked)]
    image, found, shares = np.zeros((HEIGHT, WIDTH, 1), np.float32), [], []
    for quadrant, source in enumerate(of):
        beyond = divmod(quadrant, 2)
        ends = [
            (c, side) if b else (0, c)
            for b, c, side in zip(beyond, cut, (HEIGHT, WIDTH), strict=True)
        ]
        # Where the corner of the image comes to lie.
        top, left = (c if b else c - s for b, c, s in zip(beyond, cut, SIZES[source], strict=True))
        for y in range(*ends[0]):
            for x in range(*ends[1]):
                if 0 <= y - top < SIZES[source][0] and 0 <= x - left < SIZES[source][1]:
                    image[y, x] = given["images"][source, y - top, x - left]
        for box, of_class in zip(given["boxes"][source], given["classes"][source], strict=True):
            y1, x1, y2, x2 = box + (top, left, top, left)
            y = np.clip((y1, y2), *ends[0])
            x = np.clip((x1, x2), *ends[1])
            share = (y[1] - y[0]) * (x[1] - x[0]) / max((y2 - y1) * (x2 - x1), 1e-9)
            if of_class >= 0:
                shares.append(share)
            if of_class >= 0 and share >= 0.5:
                found.append((y[0], x[0], y[1], x[1], of_class))
    return image, found, shares


@pytest.fixture(scope="module")
def pairs():
    """What was given and what was made of it, of many seeds."""
    made = tf.function(with_mosaics)
    return [(given, made(given)) for given in map(batch, range(12))]


def test_mosaics_are_those_of_a_loop_over_pixels_and_boxes(pairs):
    mosaics, left = 0, []
    for given, made in pairs:
        for number, size in enumerate(SIZES):
            own = np.c_[given["boxes"][number], given["classes"][number]]
            image, boxes = given["images"][number], own[own[:, -1] >= 0]
            if found := mosaic(given, number):
                mosaics, size = mosaics + 1, (HEIGHT, WIDTH)
                image, boxes, shares = found
                left += shares
            there = made["classes"][number].numpy() >= 0
            kept = np.c_[made["boxes"][number], made["classes"][number]][there]
            np.testing.assert_array_equal(made["images"][number], image)
            np.testing.assert_array_equal(made["sizes"][number], size)
            np.testing.assert_allclose(kept, np.reshape(boxes, (-1, 5)), atol=1e-4)
            assert not np.any(made["boxes"][number].numpy()[~there])
    assert 20 <= mosaics <= 40  # Of 60, about half.
    # All that may happen to a box did: it is whole, cut, left out, beyond the part of its image.
    assert set(np.digitize(left, [1e-6, 0.5, 1 - 1e-6])) == {0, 1, 2, 3}


def test_batches_keep_what_is_no_image_and_have_room_for_all_boxes(pairs):
    given, made = pairs[0]
    assert set(given) - set(made) == {"seed"}
    for name in ("index", "scales"):
        np.testing.assert_array_equal(made[name], given[name])
    assert made["classes"].shape == (5, 4 * MOST) and made["boxes"].shape == (5, 4 * MOST, 4)
