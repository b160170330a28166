"""Calibration records the ranges of its images, and refuses those it cannot use."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.small_digits import calibrated_network, few_digits
from tfcq.errors import UserError
from tfcq.evaluation.features import FeatureExtractor
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.settings.bitwidths import BitWidth


@pytest.fixture
def images():
    return few_digits()


@pytest.fixture
def model(images):
    return calibrated_network(images)


def test_calibration_records_the_same_ranges_whatever_the_batch_size(model, images):
    def ranges():
        return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]

    whole = ranges()
    calibrate(model, images, batch_size=7)
    np.testing.assert_allclose(ranges(), whole, rtol=1e-6)
    calibrate(model, images[:1])
    assert not np.allclose(ranges(), whole)


def test_calibration_refuses_images_of_another_type_or_shape(model, images):
    with pytest.raises(UserError, match="Images of type uint8 .*pixels / 255"):
        calibrate(model, (255 * images).astype(np.uint8))
    with pytest.raises(UserError, match=r"Images of shape \(\d+, 3\) .*'any'"):
        calibrate(model, np.zeros((2, 3), np.float32))


def test_calibration_refuses_no_images_and_nan(model, images):
    with pytest.raises(UserError, match="0 images"):
        calibrate(model, images[:0])
    images[3, 2, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        calibrate(model, images)


def ranges_of(model):
    return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]


@pytest.mark.parametrize(
    "form",
    [list, np.ndarray.tolist, tf.Variable, tf.constant, lambda x: (x, np.zeros(len(x))),
     lambda x: {"image": x, "name": x[:, 0, 0, 0]}, lambda x: [x[:4], x[4:8]],
     lambda x: tf.data.Dataset.from_tensor_slices(x)],
)  # fmt: skip
def test_whatever_form_images_come_in_ranges_and_features_are_the_same(model, images, form):
    images = images[:8]
    calibrate(model, images)
    expected, features = ranges_of(model), FeatureExtractor(model)
    calibrate(model, form(images))
    np.testing.assert_array_equal(ranges_of(model), expected)
    found = features(form(images), BitWidth(4, 4))
    np.testing.assert_array_equal(found, features(images, BitWidth(4, 4)))


@pytest.mark.parametrize(
    ("form", "words"),
    [(iter, "a list_iterator"), (lambda _: {1}, "a set"), (lambda _: None, "None"),
     (lambda _: 3.0, "a float"), (lambda _: "photos", "'photos'"),
     (lambda x: memoryview(np.stack(x)), "a memoryview"),
     (lambda x: [x[0], x[0][:5]], "a list"), (lambda _: keras.Input((8, 8, 1)), "a KerasTensor"),
     (lambda _: tf.ragged.constant([[1.0], [2.0, 3.0]]), "elements RaggedTensorSpec")],
)  # fmt: skip
def test_what_holds_no_images_is_named_as_received(model, images, form, words):
    for receives, name in ((calibrate, "calibrate()"), (FeatureExtractor(model), "FeatureExtr")):
        arguments = (model,) if receives is calibrate else ()
        with pytest.raises(UserError, match=f"^{re.escape(name)}.* received {words}") as caught:
            receives(*arguments, form(list(images)))
        assert "allowed: images" in str(caught.value)


def test_features_are_of_images_as_the_model_takes_them(model, images):
    features = FeatureExtractor(model)
    with pytest.raises(UserError, match="Images of type uint8 .*pixels / 255"):
        features((255 * images).astype(np.uint8))
    with pytest.raises(UserError, match="Images of shape .*'any'"):
        features(images[0])
    with pytest.raises(UserError, match="to 255 were received.* pixels from 0 to 1; .*input_range"):
        features(255 * images / images.max())
    assert FeatureExtractor(model, input_range="0-255")(255 * images / images.max()).shape


def test_pixels_are_pixels_to_a_model_that_takes_them(images):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    model = quantizable(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    pixels = np.rint(255 * images)
    calibrate(model, pixels)
    expected, features = ranges_of(model), FeatureExtractor(model)
    calibrate(model, pixels.astype(np.uint8))
    np.testing.assert_array_equal(ranges_of(model), expected)
    found = features(pixels.astype(np.uint8), BitWidth(8, 8))
    np.testing.assert_array_equal(found, features(pixels, BitWidth(8, 8)))
