"""Which pixels a model takes, by its first layers; images that miss them are refused."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.input_range import found_input_range, to_unit, with_unit_input
from tfcq.nn.quantizable import quantizable

SHAPE = (32, 32, 3)


def behind(*first, shape=SHAPE):
    return keras.Sequential([keras.Input(shape), *first, layers.Conv2D(2, 3)])


def computed(preprocess):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Conv2D(2, 3)(preprocess(inputs)))


def split_into_channels(inputs):
    channels = keras.ops.split(layers.Rescaling(1 / 255)(inputs), 3, axis=-1)
    return layers.Add()([layers.Conv2D(2, 1)(channel) for channel in channels])


applications = keras.applications
FOUND = {
    "Rescaling": ("0-255", lambda: behind(layers.Rescaling(1 / 255))),
    "Rescaling to -1": ("0-255", lambda: behind(layers.Rescaling(1 / 127.5, -1))),
    "Normalization of pixels": (
        "0-255", lambda: behind(layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3))
    ),
    "Normalization": (
        "0-1", lambda: behind(layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3))
    ),
    "Rescaling of 0-1": ("0-1", lambda: behind(layers.Rescaling(2, -1))),
    "Rescaling of -1-1": ("-1-1", lambda: behind(layers.Rescaling(0.5, 0.5))),
    "twice": ("0-1", lambda: behind(layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, -1))),
    "quotient": ("0-255", lambda: computed(lambda x: x / 255)),
    "difference": ("0-1", lambda: computed(lambda x: (x - 0.5) * 2)),
    "caffe": ("0-255", lambda: computed(applications.resnet50.preprocess_input)),
    "tf": ("0-255", lambda: computed(applications.mobilenet_v2.preprocess_input)),
    "torch": ("0-255", lambda: computed(applications.densenet.preprocess_input)),
    "augmented": (
        "0-255",
        lambda: behind(keras.Sequential([layers.RandomFlip()]), layers.Rescaling(1 / 255)),
    ),
    "nested": ("0-255", lambda: behind(behind(layers.Rescaling(1 / 255)))),
    "split": ("0-255", lambda: computed(split_into_channels)),
    "any size": ("0-255", lambda: behind(layers.Rescaling(1 / 255), shape=(None, None, 1))),
    "nothing": (None, behind),
    "centred": (None, lambda: behind(layers.Rescaling(1.0, -0.5))),
    "no image": (None, lambda: keras.Sequential([keras.Input((5,)), layers.Dense(2)])),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_first_layers_tell_which_pixels_a_model_takes(name):
    expected, build = FOUND[name]
    assert found_input_range(build()) == expected


@pytest.mark.parametrize("name", ["0-255", "-1-1", "0-1"])
def test_a_unit_input_computes_what_the_model_does_on_its_own_pixels(name):
    model = quantizable(behind(), "uniform")
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE))
    own = {"0-255": pixels, "-1-1": pixels / 127.5 - 1, "0-1": pixels / 255}[name]
    own = own.astype(np.float32)
    calibrate(model, own, input_range=name)
    unit = with_unit_input(model, name)
    np.testing.assert_allclose(unit(to_unit(own, name)), model(own), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(to_unit(own, name), pixels / 255, atol=1e-6)
    quantizers = [layer for layer in unit.layers if layer.name.endswith("_quantizer")]
    assert all(np.isfinite(float(layer.maximum)) for layer in quantizers)


@pytest.mark.parametrize(
    ("first", "factor", "said"),
    [
        ((), 255, "from 0 to 2.*takes pixels from 0 to 1; .*'0-255'"),
        ((layers.Rescaling(1 / 255),), 1, "takes pixels from 0 to 255; "),
    ],
    ids=["pixels for 0-1", "0-1 for pixels"],
)
def test_calibration_refuses_images_that_miss_the_pixels_by_an_order_of_magnitude(
    first, factor, said
):
    model = quantizable(behind(*first))
    images = np.linspace(0, 1, 2 * 32 * 32 * 3, dtype=np.float32).reshape(2, *SHAPE)
    with pytest.raises(UserError, match=said):
        calibrate(model, factor * images)
    calibrate(model, (255 if first else 1) * images)
    calibrate(model, factor * images, input_range="0-1" if first else "0-255")


def test_bytes_are_pixels_where_the_model_takes_0_to_255():
    model = quantizable(behind(layers.Rescaling(1 / 255)), "uniform")
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    ends = []
    for images in (pixels, pixels.astype(np.float32)):
        calibrate(model, images)
        ends.append([float(weight) for weight in model.weights if weight.name == "maximum"])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("make", [lambda model: model, quantizable], ids=["float", "quantizable"])
def test_a_model_of_bytes_is_given_floats_behind_a_unit_input(make):
    inputs = keras.Input(SHAPE, dtype="uint8")
    model = make(keras.Model(inputs, layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(inputs))))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    assert found_input_range(model) == "0-255"
    unit = with_unit_input(model, "0-255")
    assert found_input_range(unit) != "0-255"
    np.testing.assert_allclose(unit(to_unit(pixels, "0-255")), model(pixels), atol=1e-5)


def test_an_unknown_range_names_the_nearest():
    images = np.ones((2, *SHAPE), np.float32)
    with pytest.raises(UserError, match="'0-256'.*Did you mean '0-255'"):
        calibrate(quantizable(behind()), images, input_range="0-256")
