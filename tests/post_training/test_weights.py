"""Weight scales that are found once, kept by the model, saved and loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.post_training.networks import quantizable_network, residual_network, small_images
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.graph import kernel_layers
from tfcq.post_training.weights import mse_scale, with_stored_scales
from tfcq.quantization import ops
from tfcq.quantization.precision import Precision
from tfcq.quantization.stored_scale import StoredScaleWeightQuantizer, stored_scale
from tfcq.settings.policies import PAPER, UNIFORM, Policy


def error(weights, scale, bits, axes):
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rounded = np.clip(np.round(weights / scale), lowest, highest) * scale
    return np.sum((rounded.astype(np.float64) - weights) ** 2, axis=axes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("axes", [None, [0, 1, 2]])
def test_mse_scale_is_the_best_of_its_candidates_in_every_channel(bits, axes):
    weights = np.random.default_rng(0).standard_t(4, (3, 3, 6, 5)).astype(np.float32)
    scale = mse_scale(tf.constant(weights), bits, axes).numpy()
    whole = ops.symmetric_scale(tf.constant(weights), bits, axes).numpy()
    assert scale.shape == whole.shape
    reduced = None if axes is None else tuple(axes)
    found = error(weights, scale, bits, reduced)
    assert np.all(found <= error(weights, whole, bits, reduced))
    naive = np.min(
        [error(weights, whole * np.float32(s), bits, reduced) for s in np.arange(5, 126) / 100], 0
    )
    np.testing.assert_allclose(found, naive, rtol=1e-4)
    if bits == 3:
        assert np.sum(found) < 0.85 * np.sum(error(weights, whole, bits, reduced))


def test_a_channel_of_zeros_stays_zero():
    weights = np.zeros((4, 2), np.float32)
    weights[:, 1] = [1, -2, 3, 0.5]
    scale = mse_scale(tf.constant(weights), 3, [0])
    assert np.all(np.isfinite(scale)) and np.all(scale.numpy() > 0)


@pytest.mark.parametrize("policy", [UNIFORM, PAPER, Policy("tensor", per_channel=False)])
@pytest.mark.parametrize("narrow", [False, True])
def test_stored_largest_magnitudes_compute_what_the_model_does(policy, narrow):
    images = small_images(5)
    policy = Policy(policy.name, first=policy.first, per_channel=policy.per_channel,
                    narrow_range=narrow)  # fmt: skip
    model = quantizable(residual_network(), policy)
    calibrate(model, images)
    copy = with_stored_scales(model, 3, scales="max")
    precision = Precision(3, 4)
    np.testing.assert_array_equal(
        copy(images, precision=precision), model(images, precision=precision)
    )
    np.testing.assert_array_equal(copy(images), model(images))
    # The weights' own bits hold whatever the pass names.
    np.testing.assert_array_equal(
        copy(images, precision=Precision(8, 4)), model(images, precision=precision)
    )


def test_stored_scales_of_least_error_are_those_of_each_kernel_at_its_bits():
    for layer in kernel_layers(with_stored_scales(quantizable_network(PAPER), 3, scales="mse")):
        bits = layer.weight_quantizer.bits
        expected = mse_scale(tf.convert_to_tensor(layer.kernel), bits, layer.kernel_axes)
        np.testing.assert_array_equal(stored_scale(layer), expected)


def test_the_original_stays_and_fixed_bits_are_kept():
    model = quantizable_network(PAPER)
    before = [w.numpy() for w in model.weights]
    copy = with_stored_scales(model, 3)
    for layer in kernel_layers(copy):
        layer.kernel.assign(layer.kernel + 1)
    for kept, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(kept, weight)
    trained = [[v.name for v in m.trainable_variables] for m in (copy, model)]
    assert trained[0] == trained[1]
    bits = {layer.name: layer.weight_quantizer.bits for layer in kernel_layers(copy)}
    assert bits == {"stem": 8, "first": 3, "second": 3, "classifier": 3}


def test_scales_and_ranges_survive_a_file(tmp_path):
    images = small_images(5)
    model = quantizable_network()
    calibrate(model, images)
    copy = with_stored_scales(model, 3)
    copy.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    precision = Precision(3, 4)
    np.testing.assert_array_equal(
        loaded(images, precision=precision), copy(images, precision=precision)
    )
    for ours, theirs in zip(kernel_layers(loaded), kernel_layers(copy), strict=True):
        assert isinstance(ours.weight_quantizer, StoredScaleWeightQuantizer)
        np.testing.assert_array_equal(stored_scale(ours), stored_scale(theirs))


def test_activations_can_be_left_in_float():
    images = small_images(5)
    model = quantizable_network()
    copy = with_stored_scales(model, 3, activations=False)
    # Never calibrated: nothing asks for a range.
    outputs = copy(images, precision=Precision(3, 2))
    np.testing.assert_array_equal(outputs, copy(images, precision=Precision(3, 8)))
    assert np.abs(outputs - model(images)).max() > 1e-3


def test_weights_on_their_grid_stay_as_they_are():
    layer = next(kernel_layers(with_stored_scales(quantizable_network(), 3)))
    layer.kernel.assign(layer.quantized_kernel(Precision(3, 8)))
    np.testing.assert_array_equal(layer.quantized_kernel(Precision(3, 8)), layer.kernel)
    levels = np.asarray(layer.kernel) / np.asarray(stored_scale(layer))
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)


def test_a_scale_that_was_never_set_is_told_of():
    quantizer = StoredScaleWeightQuantizer(3)
    layer = keras.layers.Layer()
    scale = quantizer.build(layer, (4, 2), [0])
    assert tuple(scale.shape) == (1, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="none was set"):
        quantizer(tf.ones((4, 2)), 3, [0], learned=scale)


@pytest.mark.parametrize("kind", ["lsq", "linear", "dorefa"])
def test_other_weight_quantizers_are_refused(kind):
    model = quantizable_network(PAPER.with_quantizers(kind, None))
    with pytest.raises(UserError, match="scales of its own"):
        with_stored_scales(model, 3)


def test_other_roundings_scales_bits_and_float_models_are_refused():
    with pytest.raises(UserError, match="rounds 'floor'"):
        with_stored_scales(quantizable_network(Policy("floor", rounding="floor")), 3)
    model = quantizable_network()
    with pytest.raises(UserError, match="Did you mean 'mse'"):
        with_stored_scales(model, 3, scales="mes")
    with pytest.raises(UserError, match="2 to 16"):
        with_stored_scales(model, 1)
    with pytest.raises(UserError, match="float model"):
        with_stored_scales(residual_network(), 3)
    with pytest.raises(UserError, match="keeps no scale"):
        stored_scale(next(kernel_layers(model)))
