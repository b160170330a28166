"""Batch-norm re-estimation, bias correction, equalization: what each changes and leaves alone."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.post_training.networks import (
    layer_named,
    quantizable_network,
    randomize_norms,
    small_images,
)
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.batch_norm import reestimate_batch_norm
from tfcq.post_training.bias_correction import correct_biases
from tfcq.post_training.equalization import equalize
from tfcq.post_training.graph import kernel_layers
from tfcq.post_training.observation import activation_quantizers
from tfcq.post_training.weights import with_stored_scales
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import FLOAT, BitWidth

BITS = BitWidth(3, 3)
PASS = Precision(3, 3)


@pytest.fixture
def images():
    return small_images(40)


@pytest.fixture
def model(images):
    model = quantizable_network()
    calibrate(model, images)
    return model


def output_of(model, name, images, precision):
    """Returns what a layer of the nested block computes, in the whole network's pass."""
    stem, block = layer_named(model, "stem"), model.get_layer("block")
    inputs = layer_named(model, "stem_quantizer")(
        stem(images, precision=precision), precision=precision
    )
    inner = type(model)(block.inputs[0], layer_named(model, name).output)
    return np.asarray(inner(inputs, precision=precision), np.float64)


def test_norms_have_the_statistics_of_the_quantized_pass_one_after_the_other(model, images):
    # So few that mean square and sample variance differ.
    images = images[:5]
    reestimate_batch_norm(model, images, BITS, batch_size=2)
    for name in ("first_norm", "second_norm"):
        norm = layer_named(model, name)
        normalized = output_of(model, name, images, PASS)
        np.testing.assert_allclose(normalized.mean((0, 1, 2)), norm.beta, atol=1e-4)
        variance = np.asarray(norm.moving_variance, np.float64)
        share = np.abs(norm.gamma) * np.sqrt(variance / (variance + norm.epsilon))
        np.testing.assert_allclose(normalized.std((0, 1, 2)), share, rtol=3e-4)


@pytest.mark.parametrize("use_bias", [False, True])
def test_correction_leaves_what_reestimated_norms_have_mended(use_bias):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=use_bias, bias_initializer="normal", name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    model = quantizable(keras.Model(inputs, layers.Conv2D(3, 3, name="b")(x)), "uniform")
    images = np.random.default_rng(0).random((40, 6, 6, 2)).astype(np.float32)
    calibrate(model, images)
    norm = model.get_layer("norm")
    mean, variance = (np.asarray(model.get_layer("a")(images)) for _ in range(2))
    norm.moving_mean.assign(mean.mean((0, 1, 2)))
    norm.moving_variance.assign(variance.var((0, 1, 2)))
    copy = with_stored_scales(model, 3)
    reestimate_batch_norm(copy, images, BITS)
    errors = correct_biases(copy, model, images, BITS)
    # Both norms give their inputs the mean beta, so nothing is left to correct there.
    np.testing.assert_allclose(errors["a"], 0, atol=1e-4)
    mean = np.mean(copy(images, precision=PASS) - model(images), (0, 1, 2))
    np.testing.assert_allclose(mean, 0, atol=1e-4)


def test_nothing_but_statistics_changes_with_the_norms(model, images):
    before = {w.path: w.numpy() for w in model.weights}
    reestimate_batch_norm(model, images, BITS)
    changed = {w.path for w in model.weights if not np.array_equal(before[w.path], w)}
    assert {path.split("/")[-1] for path in changed} == {"moving_mean", "moving_variance"}
    assert len(changed) == 4


def test_corrected_means_are_those_of_the_float_pass_behind_norms_of_another_variance(
    model, images
):
    copy = with_stored_scales(model, 3)
    reestimate_batch_norm(copy, images, BITS)
    correct_biases(copy, model, images, BITS)
    for name in ("first_norm", "second_norm"):
        outputs = output_of(copy, name, images, PASS), output_of(model, name, images, None)
        means = [values.mean((0, 1, 2)) for values in outputs]
        np.testing.assert_allclose(*means, atol=1e-5)


def test_corrected_layers_have_the_mean_output_of_the_float_pass(model, images):
    copy = with_stored_scales(model, 3)
    worst = []
    for corrected in (False, True):
        if corrected:
            errors = correct_biases(copy, model, images, BITS, batch_size=9)
        worst.append(
            {
                name: np.abs(
                    (output_of(copy, name, images, PASS) - output_of(model, name, images, None))
                    .mean((0, 1, 2))
                ).max()
                for name in ("first_norm", "second_norm")
            }
        )  # fmt: skip
    assert list(errors) == ["stem", "first", "second", "classifier"]
    for name in worst[0]:
        assert worst[0][name] > 5e-3
        assert worst[1][name] < 2e-5
    mean = np.mean(copy(images, precision=PASS) - model(images), 0)
    np.testing.assert_allclose(mean, 0, atol=2e-5)


def test_a_fused_activation_is_corrected_before_it(model, images):
    copy = with_stored_scales(model, 3)
    error = correct_biases(copy, model, images, BITS)["stem"]
    stem, plain = layer_named(copy, "stem"), layer_named(model, "stem")
    means = []
    for kernel in (stem.quantized_kernel(PASS), plain.kernel):
        outputs = keras.ops.conv(images, kernel, padding="same")
        means.append(np.asarray(outputs, np.float64).mean((0, 1, 2)))
    np.testing.assert_allclose(error, means[0] - means[1], atol=1e-5)
    np.testing.assert_allclose(stem.bias, plain.bias - error, atol=1e-6)


def test_correcting_twice_changes_nothing_more(model, images):
    copy = with_stored_scales(model, 3)
    correct_biases(copy, model, images, BITS)
    again = correct_biases(copy, model, images, BITS)
    for name, error in again.items():
        np.testing.assert_allclose(error, 0, atol=2e-5, err_msg=name)


def test_a_layer_without_bias_and_norm_is_absent():
    inputs = keras.Input((4,))
    x = layers.Dense(4, use_bias=False, activation="relu", name="bare")(inputs)
    model = quantizable(keras.Model(inputs, layers.Dense(2, name="biased")(x)), "uniform")
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    calibrate(model, vectors)
    copy = with_stored_scales(model, 3)
    assert list(correct_biases(copy, model, vectors, BITS)) == ["biased"]
    mean = np.mean(copy(vectors, precision=PASS) - model(vectors), 0)
    np.testing.assert_allclose(mean, 0, atol=1e-5)


def test_float_bits_and_no_images_are_refused(model, images):
    with pytest.raises(UserError, match="Bits None"):
        correct_biases(model, model, images, FLOAT)
    with pytest.raises(UserError, match="0 images"):
        correct_biases(model, model, images[:0], BITS)
    with pytest.raises(UserError, match="0 images"):
        reestimate_batch_norm(model, images[:0], BITS)


def test_norms_can_have_the_statistics_of_the_float_pass(model, images):
    reestimate_batch_norm(model, images, FLOAT)
    norm = layer_named(model, "first_norm")
    normalized = output_of(model, "first_norm", images, None)
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), norm.beta, atol=1e-4)


def ranges_of(first, norm, second):
    factor = np.abs(norm.gamma) / np.sqrt(norm.moving_variance + norm.epsilon)
    ours = np.abs(first.kernel).max((0, 1, 2)) * factor
    return ours, np.abs(second.kernel).max((0, 1, 3))


def test_equalized_pairs_have_equal_ranges_and_the_same_float_function(model, images):
    expected = model(images)
    assert equalize(model) == [("first", "second")]
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    found = ranges_of(*(layer_named(model, n) for n in ("first", "first_norm", "second")))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    original = quantizable_network()
    before = ranges_of(*(layer_named(original, n) for n in ("first", "first_norm", "second")))
    assert np.abs(np.log(before[0] / before[1])).max() > 0.3
    # Recorded ranges would not fit any more.
    assert all(np.isinf(q.minimum.numpy()) for q in activation_quantizers(model))


def test_chains_through_depthwise_convolutions_fused_relu_and_pooling_are_equalized():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, activation="relu", bias_initializer="normal", name="a")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="normal", name="b")(x)
    x = layers.ZeroPadding2D()(layers.LeakyReLU()(x))
    x = layers.Conv2D(5, 3, use_bias=False, name="c")(x)
    x = layers.ReLU()(layers.BatchNormalization(center=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    plain = keras.Model(inputs, layers.Dense(2, name="d")(x))
    randomize_norms(plain)
    model = quantizable(plain, "uniform")
    layer_named(model, "a").kernel.assign(layer_named(model, "a").kernel * [0.0, 1, 10, 100])
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
    expected = model(images)
    assert equalize(model) == [("a", "b"), ("b", "c"), ("c", "d")]
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)
    depthwise = np.abs(layer_named(model, "b").kernel)
    ours = np.abs(layer_named(model, "a").kernel).max((0, 1, 2))
    np.testing.assert_allclose(ours[1:], depthwise.max((0, 1, 3))[1:], rtol=1e-3)


def test_pairs_with_a_second_reader_or_a_relu6_between_stay():
    model = quantizable(mobilenet_v2(width=8, input_shape=(32, 32, 3)))
    randomize_norms(model)
    assert all("project" in first for first, _ in equalize(model, iterations=1))
    inputs = keras.Input((4,))
    shared = layers.Dense(4)(inputs)
    outputs = layers.Add()([layers.Dense(4)(shared), shared])
    assert equalize(quantizable(keras.Model(inputs, outputs))) == []


def test_equalization_after_scales_were_found_is_refused(model):
    with pytest.raises(UserError, match="Equalize before"):
        equalize(with_stored_scales(model, 3))
    with pytest.raises(UserError, match="The nearest is 1"):
        equalize(model, iterations=0)
    assert next(kernel_layers(model)).name == "stem"
