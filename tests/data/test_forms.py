"""The forms in which people have images all give the same images."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.data.augmentation import Augmentation
from tfcq.data.forms import held_images, single_images
from tfcq.data.user_images import two_views
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 6, 6, 3), np.uint8)
LABELS = np.arange(11) % 3
PLAIN = Augmentation((1.0, 1.0), (1.0, 1.0), 0.0, 0.0, grayscale=0.0, blur=0.0)
slices = tf.data.Dataset.from_tensor_slices

FORMS = {
    "array": PIXELS,
    "tensor": tf.constant(PIXELS),
    "list of images": list(PIXELS),
    "array and labels": (PIXELS, LABELS),
    "whole numbers": PIXELS.astype(np.int64),
    "floats": PIXELS / 255,
    "half floats": (PIXELS / 255).astype(np.float32),
    "single": slices(PIXELS),
    "single floats": slices(PIXELS.astype(np.float32) / 255),
    "batches": slices(PIXELS).batch(4),
    "whole batches": slices(np.concatenate([PIXELS, PIXELS[:1]])).batch(4, True).take(3),
    "labelled": slices((PIXELS, LABELS)),
    "labelled batches": slices((PIXELS, tf.one_hot(LABELS, 3))).batch(4),
    "dictionary": slices({"id": LABELS, "picture": PIXELS}),
    "dictionary and label": slices(({"image": PIXELS, "mask": PIXELS[..., :1]}, LABELS)).batch(4),
    "dictionary with a mask": slices({"image": PIXELS, "a_mask": PIXELS[..., :1]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form):
    images, size, _ = single_images(FORMS[form], "two_views()")
    found = np.stack(list(images.as_numpy_iterator()))
    assert size == len(found)
    pixels = found if found.dtype == np.uint8 else found * 255
    np.testing.assert_allclose(pixels[:11], PIXELS, atol=0.1)


@pytest.mark.parametrize("form", ["array", "floats", "labelled batches"])
def test_views_are_those_of_the_images_whatever_their_form(form):
    expected = two_views(slices(PIXELS), 5, seed=3).take(3)
    for ours, theirs in zip(two_views(FORMS[form], 5, seed=3).take(3), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_grey_images_need_no_axis_of_channels():
    grey = PIXELS[..., 0]
    for data in (grey, slices(grey), slices((grey, LABELS)).batch(3)):
        images, size, _ = single_images(data, "two_views()")
        found = np.stack(list(images.as_numpy_iterator()))
        np.testing.assert_array_equal(found[..., 0], grey)


@pytest.mark.parametrize("options", [{}, {"labels": None}, {"batch_size": None}])
def test_images_of_a_keras_directory_are_pixels(tmp_path, options):
    for number, pixels in enumerate(PIXELS):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    made = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(6, 6), batch_size=options.get("batch_size", 4), shuffle=False,
        labels=options.get("labels", "inferred"), verbose=False,
    )  # fmt: skip
    images, size, _ = single_images(made, "two_views()")
    found = np.stack(list(images.as_numpy_iterator()))
    assert size == 11 and found.max() <= 1
    expected = {tuple(pixels.ravel()) for pixels in PIXELS}
    assert {tuple(pixels) for pixels in np.round(found * 255).reshape(11, -1)} == expected
    first, _ = next(iter(two_views(made, 5, augmentation=PLAIN)))
    assert 0.5 < float(tf.reduce_max(first)) <= 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (PIXELS.astype(np.float32), "float32 images with values from 0 to 255; allowed: floats fr"),
        (PIXELS / 127.5 - 1, "float64 images with values from -1 to 1; allowed: floats from 0 to"),
        (PIXELS / np.nan, "values from nan to nan"),
        (PIXELS.astype(np.int32) - 5, "int32 images with values from -5 to 2..; allowed: pixels"),
        (slices(PIXELS.astype(np.float32)).batch(4), "values from 0 to 255"),
        (PIXELS > 9, "images of bool; allowed: uint8 or floats"),
        ((PIXELS, PIXELS), "of which 2 are images.*map"),
        (LABELS, "of which 0 are images"),
        (slices(["a.png", "b.png"]), r"elements string \(\), of which 0 are images"),
        (slices(PIXELS).repeat(), "endless data set; allowed: without repeat"),
        (slices(PIXELS).filter(lambda image: True), "unknown length"),
        (slices(PIXELS).take(0), "received 0 images"),
        ("pictures/", "received 'pictures/'.*image_dataset_from_directory"),
        (None, "received None"),
        (object(), "received a object; allowed"),
        (PIXELS[..., :2], "of which 0 are images"),
    ],
)
def test_what_cannot_be_used_is_named_as_received(data, text):
    with pytest.raises(UserError, match=rf"^two_views\(\).*{text}") as caught:
        two_views(data, 2)
    assert "\n" not in str(caught.value)


def test_images_of_many_sizes_become_views_of_one():
    sizes = tf.data.Dataset.from_generator(
        lambda: (np.full((6 + i % 3, 7, 3), 10 * i, np.uint8) for i in range(12)),
        output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
    ).apply(tf.data.experimental.assert_cardinality(12))
    one, two = next(iter(two_views(sizes, 12, image_size=5, augmentation=PLAIN)))
    assert one.shape == (12, 5, 5, 3)
    levels = sorted(np.round(255 * one.numpy()[:, 0, 0, 0]))
    assert levels == [10 * i for i in range(12)]
    with pytest.raises(UserError, match="Set --image_size"):
        two_views(sizes, 12)


def test_a_bright_image_far_behind_the_first_is_refused_when_it_comes():
    images = np.zeros((200, 4, 4, 3), np.float32)
    images[150] = 255
    views = two_views(images, 10)
    with pytest.raises(tf.errors.InvalidArgumentError, match="UserError: two_views.*0 to 255|255"):
        for _ in views.take(20):
            pass


def test_calibration_takes_a_data_set():
    inputs = keras.Input((6, 6, 3))
    outputs = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = quantizable(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(outputs)))
    floats = PIXELS.astype(np.float32) / 255
    ranges = []
    for images in (floats, slices(floats), slices((floats, LABELS)).batch(3)):
        calibrate(model, images)
        ranges.append([w.numpy() for w in model.weights if w.name in ("minimum", "maximum")])
        for weight in model.weights:
            if weight.name in ("minimum", "maximum"):
                weight.assign(weight * 0)
    for found in ranges[1:]:
        for ours, theirs in zip(found, ranges[0], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="Images of type uint8"):
        calibrate(model, slices(PIXELS))
    with pytest.raises(UserError, match="calibrate.. received an endless data set"):
        calibrate(model, slices(floats).repeat())


def test_images_held_together_have_one_shape():
    varying = tf.data.Dataset.from_generator(
        lambda: iter([np.zeros((4, 4, 1)), np.zeros((5, 4, 1))]),
        output_signature=tf.TensorSpec((None, None, 1)),
    ).apply(tf.data.experimental.assert_cardinality(2))
    with pytest.raises(UserError, match=r"shapes such as \(4, 4, 1\) and \(5, 4, 1\)"):
        held_images(varying, "calibrate()")
