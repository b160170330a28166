"""The int8 model: integers throughout, on the grids of the simulation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.integer.conftest import randomize_norms
from tfcq.backbones.resnet import resnet
from tfcq.deployment.check import compare
from tfcq.deployment.tflite import float_tflite, int8_tflite
from tfcq.errors import UserError
from tfcq.evaluation.features import FeatureExtractor
from tfcq.integer.runtime import LiteModel
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import POLICIES, Policy


@pytest.fixture(scope="module")
def int8(network, images):
    return LiteModel(int8_tflite(network, images))


def test_every_tensor_but_the_output_is_integer(int8):
    assert {tensor.dtype for tensor in int8.tensors if not tensor.is_output} == {
        np.uint8, np.int8, np.int32,
    }  # fmt: skip
    assert [tensor.dtype for tensor in int8.tensors if tensor.is_output] == [np.float32]


def test_scales_and_zero_points_behind_quantizers_are_the_simulations(network, int8):
    found = {
        (np.float32(t.scales[0]), int(t.zero_points[0]))
        for t in int8.tensors
        if t.dtype == np.int8 and len(t.scales) == 1
    }
    quantizers = [layer for layer in network.layers if isinstance(layer, ActivationQuantizer)]
    assert len(quantizers) == 9
    for layer in quantizers:
        scale, zero_point, _ = layer.quantizer.parameters(8, layer.minimum, layer.maximum)
        nearest = min(found, key=lambda pair: abs(pair[0] - scale.numpy()))
        np.testing.assert_allclose(nearest[0], scale, rtol=1e-6)
        assert nearest[1] == int(zero_point) - 128


def test_an_input_pixel_is_its_own_level(int8, images):
    (tensor,) = [tensor for tensor in int8.tensors if tensor.dtype == np.uint8]
    np.testing.assert_allclose(tensor.scales, [1 / 255], rtol=1e-6)
    assert tensor.zero_points.tolist() == [0]
    np.testing.assert_array_equal(int8(np.maximum(images[:4] - 0.4 / 255, 0)), int8(images[:4]))


def test_where_a_policy_quantizes_all_that_int8_does_both_agree(images):
    keras.utils.set_random_seed(0)
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1, 1, 1, 1))
    randomize_norms(model)
    model = quantizable(model, Policy("int8", narrow_range=True))
    calibrate(model, images)
    simulation = model(images, precision=Precision(8, 8)).numpy()
    deployed = LiteModel(int8_tflite(model, images))(images)
    assert compare(deployed, simulation, lambda features: features).relative_l2 < 0.01


def test_int8_stays_close_to_simulation_and_float(network, images, int8):
    deployed = int8(images)
    for precision in (Precision(8, 8), None):
        reference = network(images, precision=precision).numpy()
        assert compare(deployed, reference, lambda features: features).relative_l2 < 0.03


def test_the_float_file_computes_the_float_pass_and_is_larger(network, images):
    content = float_tflite(network)
    np.testing.assert_allclose(LiteModel(content)(images), network(images), rtol=1e-4, atol=1e-5)
    assert len(content) > 1.5 * len(int8_tflite(network, images))


def test_a_mobilenet_becomes_integer_throughout():
    keras.utils.set_random_seed(0)
    whole = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None)
    randomize_norms(whole)
    # Depthwise convolutions, ReLU6, linear bottlenecks and one residual sum.
    body = whole.get_layer("block_2_add").output
    model = keras.Model(whole.input, keras.layers.GlobalAveragePooling2D()(body))
    model = quantizable(model, "uniform")
    images = np.random.default_rng(0).random((16, 32, 32, 3), np.float32)
    calibrate(model, images)
    simulation = model(images, precision=Precision(8, 8)).numpy()
    deployed = LiteModel(int8_tflite(model, images))(images)
    assert compare(deployed, simulation, lambda features: features).relative_l2 < 0.03


def test_conversion_writes_nothing_to_the_terminal(network, images, capfd):
    LiteModel(int8_tflite(network, images))(images[:1])
    LiteModel(float_tflite(network))(images[:1])
    assert capfd.readouterr() == ("", "")


def test_images_that_are_no_pixels_from_0_to_1_are_refused(images):
    model = quantizable(resnet(18, "cifar", 2, images.shape[1:], blocks=(1,)))
    with pytest.raises(UserError, match="Images from 0 to .* takes, from 0 to 1, or others with"):
        int8_tflite(model, 255 * images)
    with pytest.raises(UserError, match="type uint8"):
        int8_tflite(model, (255 * images).astype(np.uint8))


def test_images_may_have_any_form_that_calibration_takes(network, images):
    expected = int8_tflite(network, images)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.zeros(len(images)))).batch(7)
    for form in (list(images), dataset, tf.constant(images)):
        assert int8_tflite(network, form) == expected
    with pytest.raises(UserError, match="No image was received; allowed: 1 and above"):
        int8_tflite(network, images[:0])


def test_a_model_that_was_not_calibrated_is_refused(images):
    model = quantizable(resnet(18, "cifar", 1, (8, 8, 1), blocks=(1, 1, 1, 1)))
    with pytest.raises(UserError, match="stem_relu_quantizer.*calibrate"):
        int8_tflite(model, images)


def test_images_of_no_fixed_size_are_refused(images):
    model = resnet(18, "cifar", 1, (None, None, 1), blocks=(1, 1, 1, 1))
    told = r"a fixed shape, as of .* inputs = keras.Input\(\(32, 32, 1\)\)"
    with pytest.raises(UserError, match=told):
        float_tflite(quantizable(model))
    inputs = keras.Input((8, 8, 1))
    fixed = quantizable(keras.Model(inputs, model(inputs)))
    assert LiteModel(float_tflite(fixed))(images[:2]).shape == (2, 8)


@pytest.mark.parametrize("kinds", [("lsq", None), (None, "pact"), ("linear", "linear")])
def test_quantizers_that_int8_cannot_reproduce_are_refused(images, kinds):
    policy = POLICIES["uniform"].with_quantizers(*kinds)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.ReLU()]
    )
    with pytest.raises(UserError, match="which int8 cannot reproduce; allowed: 'minmax'"):
        int8_tflite(quantizable(model, policy), images)


def deployed(network, images, **options):
    """Returns features of the int8 file and of the 8w8a simulation."""
    model = quantizable(network, "int8")
    calibrate(model, images, **options)
    lite = LiteModel(int8_tflite(model, images, **options))
    ours = model(images, precision=Precision(8, 8))
    return lite, keras.tree.map_structure(np.asarray, ours)


def convolutions(inputs, count=2, **settings):
    for _ in range(count):
        inputs = keras.layers.Conv2D(6, 3, activation="relu", **settings)(inputs)
    return inputs


def assert_close(found, expected):
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3)).astype(np.uint8)


def test_operations_on_tensors_go_all_the_way_to_the_file(pixels):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = convolutions((inputs - 0.5) * 2)[:, ::2]
    x = keras.layers.Dense(5)(keras.ops.mean(x, axis=(1, 2)))
    lite, ours = deployed(keras.Model(inputs, x), (pixels / 255).astype(np.float32))
    assert_close(lite((pixels / 255).astype(np.float32)), ours)


@pytest.mark.parametrize("kind", [list, dict])
def test_several_outputs_are_compared_one_by_one(pixels, kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(convolutions(inputs))
    outputs = [keras.layers.Dense(count)(x) for count in (5, 3, 4)]
    model = keras.Model(inputs, outputs if kind is list else dict(zip("abc", outputs, strict=True)))
    images = (pixels / 255).astype(np.float32)
    lite, ours = deployed(model, images)
    for found, expected in zip(lite(images), keras.tree.flatten(ours), strict=True):
        assert_close(found, expected)
    features = FeatureExtractor(quantizable(model))(images)
    keras.tree.assert_same_structure(features, model(images))


FIRST = {
    "0-255": lambda: [keras.layers.Rescaling(1 / 255)],
    "0-255 to -1": lambda: [keras.layers.Rescaling(1 / 127.5, -1)],
    "0-1": lambda: [keras.layers.Rescaling(2.0, -1.0)],
    "told": list,
}


@pytest.mark.parametrize("name", FIRST)
def test_the_file_takes_bytes_whatever_pixels_the_model_takes(pixels, name):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((12, 12, 3))
    for layer in FIRST[name]():
        x = layer(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(convolutions(x)))
    own = pixels if name != "0-1" else pixels / 255
    options = {"input_range": "0-255"} if name == "told" else {}
    lite, ours = deployed(model, own.astype(np.float32), **options)
    (taken,) = [tensor for tensor in lite.tensors if tensor.dtype == np.uint8]
    np.testing.assert_allclose(taken.scales, [1 / 255], rtol=1e-6)
    assert_close(lite((pixels / 255).astype(np.float32)), ours)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_any_dtype_policy_of_the_process_gives_the_same_file(pixels, dtype, when):
    def build():
        inputs = keras.Input((12, 12, 3), dtype="float32")
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(convolutions(inputs)))
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(0, 0.2, weight.shape) for weight in model.weights])
        return model

    images = (pixels / 255).astype(np.float32)
    plain, _ = deployed(build(), images)
    model = build() if when == "before" else None
    keras.config.set_dtype_policy(dtype)
    try:
        lite, _ = deployed(model or build(), images)
    finally:
        keras.config.set_dtype_policy("float32")
    assert_close(lite(images), plain(images))


def test_layers_may_have_the_names_of_grids_and_lora_is_merged(pixels):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="images")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv_grid")(x)
    x = keras.layers.GlobalAveragePooling2D(name="images_grid")(x)
    logits = keras.layers.Dense(3, lora_rank=1, name="logits")
    model = keras.Model(inputs, logits(x))
    logits.lora_kernel_b.assign(np.ones((1, 3)))
    images = (pixels / 255).astype(np.float32)
    lite, ours = deployed(model, images)
    assert_close(lite(images), ours)


AT_ODDS = {
    "conv selu": lambda x: keras.layers.Conv2D(4, 1, activation="selu", name="odd")(x),
    "softplus": lambda x: keras.layers.Activation("softplus", name="odd")(x),
    "mish": lambda x: keras.layers.Activation("mish", name="odd")(x),
    "unit norm": lambda x: keras.layers.UnitNormalization(name="odd")(x),
    "bilinear": lambda x: keras.layers.UpSampling2D(interpolation="bilinear", name="odd")(x),
}


@pytest.mark.parametrize("name", AT_ODDS)
def test_what_int8_runtimes_do_not_have_is_named_as_the_user_named_it(name, pixels):
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(AT_ODDS[name](x))
    images = (pixels / 255).astype(np.float32)
    model = quantizable(keras.Model(inputs, keras.layers.Dense(2)(x)), "int8")
    calibrate(model, images)
    with pytest.raises(UserError, match="would stay in float at 'odd"):
        int8_tflite(model, images)
