"""Images as evaluation sees them, against a naive resize, and in their order."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.plain_images import central_crop, labelled_arrays, labelled_batches
from tfcq.data.split import Split
from tfcq.errors import UserError


def numbered(size: int) -> Split:
    """A split whose image i is filled with the value i."""
    index = np.arange(size)
    images = np.broadcast_to(index[:, None, None, None], (size, 4, 4, 1)).astype(np.uint8)
    records = tf.data.Dataset.from_tensor_slices({"index": index, "image": images, "label": index})
    return Split("train", size, (4, 4, 1), None, records, lambda record: record, 16)


def test_labelled_batches_keep_order_values_and_remainder():
    batches = list(labelled_batches(numbered(10), 4, 4).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    images, labels = labelled_arrays(numbered(10), 4, limit=7)
    assert labels.dtype == np.int64 and labels.tolist() == list(range(7))
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(7, dtype=np.float32) / 255)


def one_image(height, width):
    """Returns an image uint8 [height, width, 3], and a split that holds it alone."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    records = tf.data.Dataset.from_tensors({"index": 0, "image": image, "label": 5})
    return image, dataclasses.replace(numbered(1), image_shape=image.shape, records=records)


def resized_naively(image, height, width):
    """Returns each pixel as the mean of those under a triangle around its centre."""

    def weights(length, size):
        scale, rows = length / size, []
        for place in range(size):
            away = [abs(pixel + 0.5 - (place + 0.5) * scale) for pixel in range(length)]
            row = np.array([max(0, 1 - distance / max(scale, 1)) for distance in away])
            rows.append(row / sum(row))
        return np.array(rows)

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ay,bx,yxc->abc", rows, columns, image / 255)


@pytest.mark.parametrize(
    ("shape", "size", "asked", "resized", "corner"),
    [
        # 7 / 0.875 is 8; 15 * 8 / 12 is 10; 3 columns too many are 2 and 1, as halves go to even.
        ((12, 15), 7, None, (8, 10), (0, 2)),
        # A wish holds for images of any size: 8 / 0.7 is 11.4.
        ((8, 8), 8, 0.7, (11, 11), (2, 2)),
        ((6, 10), 3, 1.0, (3, 5), (0, 1)),
        # Images that are smaller than the network's are seen whole.
        ((5, 5), 8, None, (8, 8), (0, 0)),
    ],
)
def test_plain_images_are_resized_by_the_shorter_side_and_cut_to_the_centre(
    shape, size, asked, resized, corner
):
    image, split = one_image(*shape)
    images, _ = labelled_arrays(split, size, test_crop=asked)
    top, left = corner
    expected = resized_naively(image, *resized)[top : top + size, left : left + size]
    np.testing.assert_allclose(images[0], expected, atol=1e-6)
    # Where the data set's sizes vary, as if each were of its own: larger ones here.
    varying = dataclasses.replace(split, image_shape=(None, None, 3))
    share = central_crop(split, size, asked)
    again, _ = labelled_arrays(varying, size, test_crop=share)
    np.testing.assert_allclose(again[0], images[0], atol=1e-6)


def test_usual_crop_is_that_of_imagenet_and_none_for_images_no_larger_than_the_networks():
    _, split = one_image(8, 12)
    assert [central_crop(split, size) for size in (7, 8, 9)] == [0.875, 1.0, 1.0]
    varying = dataclasses.replace(split, image_shape=(None, None, 3))
    assert central_crop(varying, 224) == 0.875 == 224 / 256
    assert central_crop(varying, 224, 0.9) == 0.9


def test_images_of_the_networks_size_stay_as_they_are_to_the_last_bit():
    image, split = one_image(8, 8)
    images, _ = labelled_arrays(split, 8)
    np.testing.assert_array_equal(images[0], image.astype(np.float32) / np.float32(255))


def test_limits_beyond_the_split_are_refused():
    with pytest.raises(UserError, match="11 images.*1 to 10"):
        labelled_arrays(numbered(10), 4, limit=11)
