"""Every backbone, made quantizable: passes, gradients, files, deployment."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.integer.conftest import randomize_norms
from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.backbones.keras_models import application, backbone_from_file
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.deployment.check import compare
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.folded import folded
from tfcq.integer.runtime import LiteModel
from tfcq.nn.calibration import calibrate
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision, RecordRanges

SHAPE = (8, 8, 3)


def first_stages_of_mobilenet():
    """Strides, residual sums and blocks without them: all that later stages have."""
    model = mobilenet_v2("imagenet", 8, SHAPE)
    x = model.get_layer("stage2_block2_add").output
    return keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(x))


BACKBONES = {
    "cifar_resnet": lambda: cifar_resnet(8, 4, SHAPE),
    "cifar_resnet_projection": lambda: cifar_resnet(8, 4, SHAPE, "projection"),
    "mobilenet_v2": first_stages_of_mobilenet,
    "vision_transformer": lambda: vision_transformer(
        patch_size=4, input_shape=SHAPE, heads=2, width=8, depth=2, frozen_patch_projection=True
    ),
}


@pytest.fixture(scope="module")
def images():
    """Images of whole pixel values, float32 [16, 8, 8, 3] in [0, 1]."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (16, *SHAPE)) / 255).astype(np.float32)


@pytest.fixture(scope="module", params=BACKBONES)
def pair(request, images):
    """Returns a float model and its quantizable copy with ranges recorded."""
    keras.utils.set_random_seed(0)
    model = BACKBONES[request.param]()
    randomize_norms(model)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.random(w.shape) for w in model.get_weights()])
    copy = quantizable(model, "uniform")
    copy(images, precision=RecordRanges(True))
    return model, copy


def test_float_pass_equals_the_original_to_the_last_bit(pair, images):
    model, copy = pair
    np.testing.assert_array_equal(copy(images), model(images))


def test_quantized_pass_is_near_at_16_bits_and_far_at_2(pair, images):
    model, copy = pair
    exact = model(images).numpy()
    near, far = (
        np.abs(copy(images, precision=Precision(bits, bits)) - exact).max() for bits in (16, 2)
    )
    assert 0 < near < 0.01 * np.abs(exact).max()
    assert far > 10 * near


def test_changing_bits_are_one_trace_and_gradients_reach_every_trainable_weight(pair, images):
    _, copy = pair
    traces = []
    direction = tf.random.stateless_normal([16, copy.output_shape[1]], [1, 2])

    @tf.function
    def gradients(bits):
        traces.append(None)
        with tf.GradientTape() as tape:
            features = copy(images, precision=Precision(bits, bits), training=True)
            loss = tf.reduce_mean(features * direction)
        return tape.gradient(loss, [v.value for v in copy.trainable_variables])

    eight_bits, four_bits = (gradients(tf.constant(bits)) for bits in (8, 4))
    assert len(traces) == 1
    for variable, gradient in zip(copy.trainable_variables, eight_bits, strict=True):
        assert np.all(np.isfinite(gradient)), variable.path
        # A softmax ignores what all keys have in common.
        if not variable.path.endswith("keys/bias"):
            assert np.abs(gradient).max() > 1e-6, variable.path
    assert any(np.any(a != b) for a, b in zip(eight_bits, four_bits, strict=True))
    frozen = {v.path for v in copy.weights} - {v.path for v in copy.trainable_variables}
    assert ("patch_projection/kernel" in frozen) == (copy.name == "vision_transformer_small")


def test_saved_model_comes_back_with_weights_ranges_and_precision(pair, images, tmp_path):
    _, copy = pair
    copy.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    for precision in (None, Precision(8, 8), Precision(2, 4)):
        np.testing.assert_array_equal(
            loaded(images, precision=precision), copy(images, precision=precision)
        )
    trainable = [[v.path for v in m.trainable_variables] for m in (copy, loaded)]
    assert trainable[0] == trainable[1]


def test_folded_model_computes_the_same_without_batch_norms(pair, images):
    _, copy = pair
    plain = folded(copy).model
    np.testing.assert_allclose(plain(images), copy(images), rtol=1e-4, atol=1e-5)
    assert not [x for x in plain.layers if isinstance(x, keras.layers.BatchNormalization)]


def test_cifar_resnet_with_identity_shortcuts_becomes_integer_throughout(images):
    keras.utils.set_random_seed(0)
    model = cifar_resnet(8, 2, SHAPE)
    randomize_norms(model)
    model = quantizable(model, "int8")
    calibrate(model, images)
    simulation = model(images, precision=Precision(8, 8)).numpy()
    deployed = LiteModel(int8_tflite(model, images))(images)
    assert compare(deployed, simulation, lambda features: features).relative_l2 < 0.02


def test_int8_vision_transformer_computes_what_its_pass_does(images):
    model = vision_transformer(patch_size=8, input_shape=SHAPE, heads=1, width=4, depth=1)
    model = quantizable(model)
    calibrate(model, images)
    found = LiteModel(int8_tflite(model, images))(images)
    assert compare(found, model(images).numpy(), lambda features: features).cosine_mean > 0.95


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"])
def test_networks_that_scale_their_images_see_those_between_0_and_1(name):
    model = application(name, (32, 32, 3))
    dark, bright = (np.full((1, 32, 32, 3), level, np.float32) for level in (0.2, 0.8))
    stem = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    seen = keras.Model(model.input, stem.input)
    spread = float(np.ptp(np.asarray(seen(bright)) - np.asarray(seen(dark))))
    change = float(np.max(np.asarray(seen(bright)) - np.asarray(seen(dark))))
    assert change > 0.5 and spread <= change


@pytest.mark.parametrize("name", ["VGG16", "MobileNet", "DenseNet121"])
def test_trained_networks_see_images_as_their_preprocessing_makes_them(name, tmp_path):
    constructor = getattr(keras.applications, name)
    settings = {"weights": None, "include_top": False, "pooling": "avg"}
    theirs = constructor(input_shape=(32, 32, 3), **settings)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours = application(name, (32, 32, 3), str(tmp_path / "theirs.weights.h5"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    modules = {"VGG16": "vgg16", "MobileNet": "mobilenet", "DenseNet121": "densenet"}
    module = getattr(keras.applications, modules[name])
    expected = theirs(module.preprocess_input(pixels.copy())).numpy()
    np.testing.assert_allclose(ours(pixels / 255), expected, rtol=1e-4, atol=1e-5)


def test_trained_classifiers_return_logits_and_missing_weights_are_told(tmp_path):
    theirs = keras.applications.MobileNet(input_shape=(32, 32, 3), weights=None, alpha=1.0)
    # Logits far apart, or a softmax of probabilities would look like one of logits.
    theirs.layers[-3].bias.assign(np.random.default_rng(1).normal(0, 2, 1000))
    theirs.save_weights(tmp_path / "a.weights.h5")
    ours = application("MobileNet", (32, 32, 3), str(tmp_path / "a.weights.h5"), classifier=True)
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(
        keras.ops.softmax(ours(images)), theirs(2 * images - 1), rtol=1e-4, atol=1e-7
    )
    with pytest.raises(UserError, match="VGG16 cannot have weights"):
        application("VGG16", (32, 32, 3), str(tmp_path / "a.weights.h5"))


def test_file_with_two_outputs_is_refused(tmp_path):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    keras.Model(inputs, [flat, flat]).save(tmp_path / "two.keras")
    with pytest.raises(UserError, match="1 inputs and 2 outputs; allowed: one of each"):
        backbone_from_file(tmp_path / "two.keras", (8, 8, 1))
