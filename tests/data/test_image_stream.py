"""A stream of images reads like the array of the same images."""

import numpy as np
import pytest

from tfcq.data.image_stream import ImageStream, as_array, image_batches, labels_of, picked
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source

COUNT, SIZE = 70, 6


@pytest.fixture(scope="module")
def split():
    """Real digits, made smaller, so that decoding has something to do."""
    return open_source("digits").split("test").first(COUNT)


@pytest.fixture(scope="module")
def stream(split):
    return ImageStream(split, SIZE)


@pytest.fixture(scope="module")
def arrays(split):
    return labelled_arrays(split, SIZE)


def test_stream_holds_the_images_of_the_array(stream, arrays):
    images, _ = arrays
    assert (stream.shape, len(stream), stream.dtype) == (images.shape, COUNT, images.dtype)
    np.testing.assert_array_equal(as_array(stream), images)
    np.testing.assert_array_equal(list(stream), images)
    for of_stream, of_array in zip(
        image_batches(stream, 32), image_batches(images, 32), strict=True
    ):
        np.testing.assert_array_equal(of_stream, of_array)


@pytest.mark.parametrize("count", [1, 30, COUNT, COUNT + 5, None])
def test_first_images_are_those_of_the_array(stream, arrays, count):
    np.testing.assert_array_equal(as_array(stream[:count]), arrays[0][:count])


def test_other_parts_are_refused(stream):
    for part in (slice(1, 5), slice(0, 5, 2), 3):
        with pytest.raises(TypeError, match=r"allowed: \[:count\]"):
            stream[part]


def test_chosen_images_and_labels_are_those_of_the_array(split, stream, arrays):
    images, labels = arrays
    chosen = np.array([0, 3, 4, 69])
    np.testing.assert_array_equal(as_array(picked(stream, chosen)), picked(images, chosen))
    np.testing.assert_array_equal(labels_of(split), labels)


def test_stream_cuts_images_as_the_array_does(split):
    stream, (images, _) = ImageStream(split, SIZE, 0.5), labelled_arrays(split, SIZE, test_crop=0.5)
    np.testing.assert_array_equal(as_array(stream), images)
    np.testing.assert_array_equal(as_array(stream[:3]), images[:3])
    np.testing.assert_array_equal(as_array(picked(stream, np.array([1, 5]))), images[[1, 5]])
