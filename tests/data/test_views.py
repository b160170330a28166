"""Batches: order, repeatability, resumption, shapes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data import order, views
from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.data.split import Split
from tfcq.data.user_images import two_views
from tfcq.errors import UserError

PLAIN = Augmentation(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip=0.0,
    jitter_probability=0.0,
    grayscale=0.0,
    blur=0.0,
).for_channels(1)


def numbered(size: int) -> Split:
    """A split whose image i is filled with the value i."""
    index = np.arange(size)
    images = np.broadcast_to(index[:, None, None, None], (size, 4, 4, 1)).astype(np.uint8)
    records = tf.data.Dataset.from_tensor_slices({"index": index, "image": images, "label": index})
    return Split("train", size, (4, 4, 1), None, records, lambda record: record, 16)


def varying(size: int) -> Split:
    """A split of PNG images of different sizes; image i is filled with the value i."""
    encoded = [
        tf.io.encode_png(np.full((3 + i % 4, 5 + i % 3, 1), i, np.uint8)).numpy()
        for i in range(size)
    ]
    index = np.arange(size)
    records = tf.data.Dataset.from_tensor_slices({"index": index, "image": encoded, "label": index})

    def decode(record):
        return {**record, "image": tf.io.decode_png(record["image"], 1)}

    return Split("train", size, (None, None, 1), None, records, decode, 100)


class Draws:
    """Stands in for an augmentation: a view shows the draws it is made from, and its image."""

    draws_per_view = 3

    def check_channels(self, channels):
        pass

    def augment(self, images, draws, size):
        return tf.concat([draws, 255 * images[:, 0, 0]], axis=1)

    def augment_one(self, image, draws, size):
        return tf.concat([draws, tf.cast(image[0, 0], tf.float32)], axis=0)


def values_of(batches: tf.data.Dataset) -> list[list[int]]:
    return [
        [round(float(v) * 255) for v in first[:, 0, 0, 0]]
        for first, _ in batches.as_numpy_iterator()
    ]


def assert_equal_streams(left, right):
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("block", [24, 10])
@pytest.mark.parametrize("make", [numbered, varying])
def test_each_epoch_is_another_permutation(make, block, monkeypatch):
    split = make(24)
    monkeypatch.setattr(order, "SHUFFLE_BYTES", block * split.record_bytes)
    monkeypatch.setattr(views, "CACHE_BYTES", 10**9 if block == 24 else 0)
    batches = values_of(views.view_batches(split, PLAIN, 4, 6, seed=3, epochs=2))
    first, second = sum(batches[:4], []), sum(batches[4:], [])
    assert sorted(first) == sorted(second) == list(range(24))
    assert len({tuple(first), tuple(second), tuple(range(24))}) == 3
    if block == 10:
        assert [v % 10 for v in first[:10]] != [v % 10 for v in first[10:20]]


@pytest.mark.parametrize("make", [numbered, varying])
def test_starting_at_a_later_step_equals_the_uninterrupted_stream(make):
    split, setting = make(22), {"image_size": 8, "batch_size": 5, "seed": 7}
    whole = list(views.view_batches(split, Draws(), **setting, epochs=3))
    resumed = views.view_batches(split, Draws(), **setting, first_epoch=2, epochs=1)
    endless = views.view_batches(split, Draws(), **setting, first_epoch=1).take(8)
    assert len(whole) == 3 * order.steps_per_epoch(split, 5) == 12
    assert_equal_streams(resumed, whole[8:])
    assert_equal_streams(endless, whole[4:])
    within = views.view_batches(split, Draws(), **setting, first_epoch=1, epochs=2, first_step=3)
    assert_equal_streams(within, whole[7:])


def test_the_stream_does_not_depend_on_the_global_seed():
    streams = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        stream = views.view_batches(numbered(20), Draws(), 4, 5, seed=1, epochs=1)
        streams.append(list(stream))
    assert_equal_streams(*streams)


def orders_and_draws(split, batch_size):
    """Returns the images by (seed, epoch), and the draws by (seed, epoch, image, view)."""
    orders, draws = {}, {}
    for seed in (0, 1):
        steps = order.steps_per_epoch(split, batch_size)
        batches = views.view_batches(split, Draws(), 4, batch_size, seed, epochs=3, labels=True)
        for number, (one, two, labels) in enumerate(batches.as_numpy_iterator()):
            epoch = seed, number // steps
            for view, rows in ((1, one), (2, two)):
                # Both views show the image that the label is of.
                np.testing.assert_allclose(rows[:, 3], labels, atol=1e-3)
                draws |= {(*epoch, i, view): row[:3] for i, row in zip(labels, rows, strict=True)}
            orders.setdefault(epoch, []).extend(labels.tolist())
    return orders, draws


@pytest.mark.parametrize("make", [numbered, varying])
def test_every_seed_epoch_image_and_view_has_uniform_draws_of_its_own(make, monkeypatch):
    split = make(43)
    orders, draws = orders_and_draws(split, 10)
    assert len({tuple(order) for order in orders.values()}) == 6
    # Those left over are others in each epoch.
    assert all(len(set(order)) == 40 for order in orders.values())
    assert set(sum(orders.values(), [])) == set(range(43))
    assert len(draws) == 2 * 3 * 40 * 2
    values = np.stack(list(draws.values()))
    assert len(np.unique(values)) > 0.99 * values.size
    assert values.min() >= 0 and values.max() < 1
    for column in values.T:
        assert abs(column.mean() - 1 / 2) < 5 / np.sqrt(12 * len(column))
        assert abs(column.var() - 1 / 12) < 5 / np.sqrt(180 * len(column))
    # Where an image stands in the epoch, and how it was read, make no difference.
    monkeypatch.setattr(views, "CACHE_BYTES", 0)
    monkeypatch.setattr(order, "SHUFFLE_BYTES", 10 * split.record_bytes)
    in_blocks, again = orders_and_draws(split, 43)
    assert all(in_blocks[epoch] != order for epoch, order in orders.items())
    assert all(np.array_equal(again[key], draws[key]) for key in draws)


@pytest.mark.parametrize("cache", [0, 10**9])
def test_images_one_by_one_have_the_draws_of_a_batch(cache, monkeypatch):
    monkeypatch.setattr(views, "CACHE_BYTES", cache)
    setting = {"image_size": 4, "batch_size": 5, "seed": -7, "first_epoch": 1, "epochs": 2}
    setting |= {"views": (2, 0, 1), "labels": True}
    together = list(views.view_batches(numbered(12), Draws(), **setting))
    monkeypatch.setattr(views, "TOGETHER_PIXELS", 15)
    assert_equal_streams(views.view_batches(numbered(12), Draws(), **setting), together)


@pytest.mark.parametrize("cache", [0, 10**9])
@pytest.mark.parametrize("make", [numbered, varying])
def test_parts_are_the_rows_of_whole_batches_and_decode_no_others(make, cache, monkeypatch):
    monkeypatch.setattr(views, "CACHE_BYTES", cache)
    split, decoded = make(22), []

    def note(index):
        decoded.append(int(index))
        return index

    def noting(record):
        index = tf.ensure_shape(tf.numpy_function(note, [record["index"]], tf.int64), [])
        return decode({**record, "index": index})

    decode, split = split.decode, dataclasses.replace(split, decode=noting)
    setting = {"image_size": 8, "batch_size": 6, "seed": 7, "labels": True}
    setting |= {"first_epoch": 1, "epochs": 2, "first_step": 1}
    whole = list(views.view_batches(split, Draws(), **setting).as_numpy_iterator())
    decoded.clear()
    parts = [
        list(views.view_batches(split, Draws(), **setting, part=(part, 3)).as_numpy_iterator())
        for part in range(3)
    ]
    assert {len(rows) for part in parts for batch in part for rows in batch} == {2}
    together = [
        map(np.concatenate, zip(*of_a_step, strict=True)) for of_a_step in zip(*parts, strict=True)
    ]
    assert_equal_streams(together, whole)
    if make is varying or cache == 0:
        assert len(decoded) == 5 * 6


def test_views_of_a_users_images_are_as_a_split_has_them():
    split = open_source("digits").split("train").first(20)
    images = split.records.map(lambda record: record["image"])
    expected = views.view_batches(split, augmentation_for(8, 1), 8, 6, seed=3, first_epoch=2)
    found = two_views(images, 6, seed=3, first_epoch=2)
    assert found.cardinality() == tf.data.INFINITE_CARDINALITY
    assert_equal_streams(found.take(4), expected.take(4))
    named = images.map(lambda image: {"id": 1, "image": image})
    chosen = two_views(named, 6, 8, PLAIN, views=(1, 0)).take(4)
    assert all(np.array_equal(view, plain) for view, plain in chosen)


@pytest.mark.parametrize("make", [numbered, varying])
def test_view_0_is_the_image_as_evaluation_sees_it(make):
    split = make(6)
    found = list(views.view_batches(split, Draws(), 4, 6, 0, epochs=1, views=(1, 2, 0)))
    pair = list(views.view_batches(split, Draws(), 4, 6, 0, epochs=1))
    (first, second, plain), (images, _) = found[0], labelled_arrays(split, 4)
    assert_equal_streams([(first, second)], pair)
    order = np.lexsort(plain.numpy().reshape(6, -1).T)
    np.testing.assert_array_equal(plain.numpy()[order], images[np.lexsort(images.reshape(6, -1).T)])


@pytest.mark.parametrize("batch_size", [0, 21])
def test_batch_sizes_that_do_not_fit_are_refused(batch_size):
    with pytest.raises(UserError, match=f"batch_size={batch_size}.*20 images.*1 to 20"):
        views.view_batches(numbered(20), PLAIN, 4, batch_size, 0)


def test_colour_augmentation_of_a_grey_scale_split_is_refused_before_any_batch():
    with pytest.raises(UserError, match="Grey-scale"):
        views.view_batches(numbered(20), Augmentation(), 4, 5, 0)


def test_shuffling_in_blocks_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(order, "SHUFFLE_BYTES", 100 * 10)
    with caplog.at_level("INFO", "absl"):
        views.view_batches(varying(24), PLAIN, 4, 6, seed=3)
    assert "24 images in blocks of 10" in caplog.text
