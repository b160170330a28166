"""Learned rounding: the grid, the formulas, and no unit worse than the nearest."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.post_training.networks import quantizable_network, small_images
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.loading import load
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.post_training.graph import kernel_layers
from tfcq.post_training.rounding import (
    RoundingSettings,
    SoftRounding,
    learn_rounding,
    regularizer_at,
    undecided,
)
from tfcq.post_training.weights import with_stored_scales
from tfcq.quantization.precision import Precision
from tfcq.quantization.stored_scale import stored_scale
from tfcq.settings.bitwidths import BitWidth

QUICK = RoundingSettings(iterations=150, batch_size=16, learning_rate=0.03)
# Few bits of activations too, without which it would not show that inputs are quantized ones.
BITS = BitWidth(2, 4)
PASS = Precision(2, 4)


@pytest.fixture(scope="module")
def images():
    return small_images(48)


@pytest.fixture(scope="module")
def model(images):
    model = quantizable_network()
    calibrate(model, images)
    return model


@pytest.fixture(scope="module", params=["layer", "block"])
def learned(request, model, images):
    copy = with_stored_scales(model, 2)
    before = {layer.name: layer.kernel.numpy() for layer in kernel_layers(copy)}
    return (
        request.param,
        copy,
        before,
        learn_rounding(copy, model, images, BITS, request.param, QUICK),
    )


def test_units_are_layers_or_blocks(learned):
    unit, _, _, found = learned
    names = ["stem", "first", "second", "classifier"]
    if unit == "block":
        names = ["stem", "first+second", "classifier"]
    assert [entry.name for entry in found] == names


def test_no_unit_is_worse_than_the_nearest_and_some_are_better(learned):
    _, _, _, found = learned
    assert all(entry.learned <= entry.nearest for entry in found)
    assert np.mean([entry.learned / entry.nearest for entry in found]) < 0.85


def test_every_weight_lies_on_a_level_beside_its_float_value(learned):
    _, copy, before, _ = learned
    moved = 0
    for layer in kernel_layers(copy):
        scale = stored_scale(layer).numpy()
        levels = layer.kernel.numpy() / scale
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
        levels = np.round(levels)
        ratio = before[layer.name] / scale
        lower, upper = np.clip(np.floor(ratio), -2, 1), np.clip(np.floor(ratio) + 1, -2, 1)
        assert np.all((levels == lower) | (levels == upper))
        moved += np.sum(levels != np.clip(np.round(ratio), -2, 1))
        np.testing.assert_array_equal(layer.quantized_kernel(PASS), layer.kernel)
    assert moved > 0


def test_the_whole_network_meets_the_float_one_better(learned, model, images):
    _, copy, _, _ = learned
    nearest = with_stored_scales(model, 2)
    errors = [
        float(np.sum((m(images, precision=PASS) - model(images)) ** 2)) for m in (copy, nearest)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_errors_of_units_are_those_of_the_quantized_pass_against_the_float_one(
    learned, model, images
):
    unit, copy, _, found = learned
    # Of a layer what it computes itself; of a block what it hands on, behind its quantizer.
    ends = {
        "stem": lambda m: m.get_layer("stem" if unit == "layer" else "stem_quantizer").output,
        "first+second": lambda m: m.get_layer("features").input,
        "classifier": lambda m: m.outputs[0],
    }
    for entry in found:
        if entry.name in ends:
            parts = [QuantizableModel(m.inputs[0], ends[entry.name](m)) for m in (copy, model)]
            wanted = parts[1](images).numpy().astype(np.float64)
            error = np.sum((parts[0](images, precision=PASS) - wanted) ** 2) / np.sum(wanted**2)
            np.testing.assert_allclose(entry.learned, error, rtol=1e-3, err_msg=entry.name)


def pairs_of_inputs():
    """Returns a dense layer, quantizable, and three vectors that each read two weights of it.

    The nearest rounds both down; the best rounds one of the two up.
    """
    inputs = keras.Input((6,))
    dense = layers.Dense(1, use_bias=False, name="dense")
    model = quantizable(keras.Model(inputs, dense(inputs)), "uniform")
    kernel = np.array([[0.45], [0.4], [1.45], [1.4], [-0.55], [-0.6]], np.float32)
    next(kernel_layers(model)).kernel.assign(kernel)
    vectors = np.repeat(np.eye(3, dtype=np.float32), 2, axis=1)
    return model, vectors, kernel


def levels_learned(**settings):
    """Returns the levels of `pairs_of_inputs` on a grid of ones."""
    model, vectors, _ = pairs_of_inputs()
    copy = with_stored_scales(model, 4)
    layer = next(kernel_layers(copy))
    stored_scale(layer).assign([[1.0]])
    settings = {"iterations": 600, "batch_size": 1, "learning_rate": 0.03, **settings}
    learn_rounding(copy, model, vectors, BitWidth(4, 8), settings=RoundingSettings(**settings))
    return layer.kernel.numpy().ravel()


def test_all_images_are_learned_from_and_the_regularizer_alone_decides():
    _, vectors, kernel = pairs_of_inputs()
    nearest = np.round(kernel.ravel())
    # One weight of each pair goes the other way, so that every image is met better.
    learned = levels_learned()
    errors = [np.abs(vectors @ levels - vectors @ kernel.ravel()) for levels in (learned, nearest)]
    assert np.all(errors[0] < 0.5 * errors[1])
    # The soft rounding starts at the float weights: nothing but the regularizer moves them.
    np.testing.assert_array_equal(levels_learned(warm_up=0.999), nearest)


def test_learning_starts_from_the_papers_settings():
    assert RoundingSettings() == RoundingSettings(
        iterations=10_000, batch_size=32, learning_rate=0.01, regularization=0.01, warm_up=0.2
    )


def test_the_regularizer_waits_for_the_warm_up_and_then_falls_along_a_cosine():
    settings = RoundingSettings(iterations=100, warm_up=0.2, regularization=0.5)
    found = [regularizer_at(tf.constant(step), settings) for step in (0, 19, 20, 40, 60, 100)]
    strengths, exponents = np.transpose(found)
    np.testing.assert_array_equal(strengths, [0, 0, 0.5, 0.5, 0.5, 0.5])
    quarter = 2 + 18 * (1 + np.cos(np.pi / 4)) / 2
    np.testing.assert_allclose(exponents, [20, 20, 20, quarter, 11, 2], rtol=1e-5)


def test_learned_rounding_survives_a_file(learned, images, tmp_path):
    _, copy, _, _ = learned
    copy.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        load(tmp_path / "model.keras")(images, precision=PASS), copy(images, precision=PASS)
    )


def test_the_same_seed_gives_the_same_rounding_and_another_one_another():
    inputs = keras.Input((20,))
    model = quantizable(keras.Model(inputs, layers.Dense(30)(inputs)), "uniform")
    vectors = np.random.default_rng(3).normal(size=(64, 20)).astype(np.float32)
    calibrate(model, vectors)
    kernels = []
    for seed in (0, 0, 1):
        copy = with_stored_scales(model, 2)
        settings = RoundingSettings(iterations=40, batch_size=4, learning_rate=0.1, seed=seed)
        learn_rounding(copy, model, vectors, BITS, settings=settings)
        kernels.append(next(kernel_layers(copy)).kernel.numpy())
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.any(kernels[0] != kernels[2])


def test_a_dense_layer_gets_the_best_of_all_roundings():
    inputs = keras.Input((6,))
    model = quantizable(keras.Model(inputs, layers.Dense(1, name="dense")(inputs)), "uniform")
    rng = np.random.default_rng(3)
    # Correlated inputs: rounding errors can cancel.
    vectors = (rng.normal(size=(64, 1)) + 0.1 * rng.normal(size=(64, 6)) + 1).astype(np.float32)
    calibrate(model, vectors)
    # The nearest rounds all of them down, which adds up.
    kernel = 0.1 * np.array([[0.45], [1.3], [-0.6], [2.48], [0.2], [-1.65]], np.float32)
    next(kernel_layers(model)).kernel.assign(kernel)
    copy = with_stored_scales(model, 3)
    layer = next(kernel_layers(copy))
    stored_scale(layer).assign([[0.1]])
    scale = np.float32(0.1)
    targets = vectors @ kernel
    errors = []
    for ups in itertools.product([0, 1], repeat=6):
        levels = np.clip(np.floor(kernel / scale) + np.array(ups)[:, None], -4, 3)
        errors.append(np.sum((vectors @ (levels * scale) - targets) ** 2))
    settings = RoundingSettings(iterations=600, batch_size=64, learning_rate=0.03)
    (found,) = learn_rounding(copy, model, vectors, BitWidth(3, 8), settings=settings)
    reached = np.sum((vectors @ layer.kernel.numpy() - targets) ** 2)
    np.testing.assert_allclose(reached, min(errors), rtol=1e-3)
    np.testing.assert_allclose(found.learned, reached / np.sum(targets**2), rtol=1e-3)
    assert found.learned < 0.01 * found.nearest


def test_soft_rounding_starts_where_nothing_is_rounded_and_ends_at_the_nearest(model):
    layer = next(kernel_layers(with_stored_scales(model, 4, scales="max")))
    rounding = SoftRounding(layer)
    scale = stored_scale(layer).numpy()
    expected = np.clip(layer.kernel.numpy(), -8 * scale, 7 * scale)
    np.testing.assert_allclose(rounding.kernel(rounding.shares()), expected, atol=1e-6)
    nearest = layer.quantized_kernel(Precision(4, 8)).numpy()
    # Half a level, exactly the case of a channel's largest magnitude, goes up here.
    ties = np.isclose(np.abs(layer.kernel.numpy() / scale) % 1, 0.5, atol=1e-4)
    np.testing.assert_allclose(rounding.rounded().numpy()[~ties], nearest[~ties], atol=1e-6)


def test_soft_rounding_is_a_stretched_sigmoid_that_reaches_both_ends(model):
    rounding = SoftRounding(next(kernel_layers(with_stored_scales(model, 4, scales="max"))))
    logits = np.linspace(-4, 4, rounding.logits.numpy().size).reshape(rounding.logits.shape)
    rounding.logits.assign(logits)
    expected = np.clip(1.2 / (1 + np.exp(-logits)) - 0.1, 0, 1)
    assert {expected.min(), expected.max()} == {0, 1}
    np.testing.assert_allclose(rounding.shares(), expected, atol=1e-6)


def test_a_rounding_that_learning_makes_worse_is_not_kept(model, images):
    hasty = RoundingSettings(iterations=1, batch_size=1, learning_rate=100.0)
    copy = with_stored_scales(model, 2)
    found = learn_rounding(copy, model, images, BITS, settings=hasty)
    rounded = {layer.name: layer for layer in kernel_layers(with_stored_scales(model, 2))}
    worse = [entry.name for entry in found if entry.learned == entry.nearest]
    assert worse
    for layer in kernel_layers(copy):
        if layer.name in worse:
            np.testing.assert_array_equal(layer.kernel, rounded[layer.name].quantized_kernel(PASS))


def test_the_regularizer_by_hand():
    shares = tf.constant([0.0, 0.25, 0.5, 1.0])
    assert float(undecided(shares, tf.constant(2.0))) == pytest.approx(0.75 + 1)
    assert float(undecided(shares, tf.constant(4.0))) == pytest.approx(1 - 0.5**4 + 1)


def test_unknown_units_settings_and_models_without_scales_are_refused(model, images):
    copy = with_stored_scales(model, 2)
    with pytest.raises(UserError, match="Did you mean 'layer'"):
        learn_rounding(copy, model, images, BITS, unit="layers")
    with pytest.raises(UserError, match="keeps no scale"):
        learn_rounding(model, model, images, BITS)
    with pytest.raises(UserError, match="iterations 0.*The nearest is 1"):
        RoundingSettings(iterations=0)
    with pytest.raises(UserError, match="warm_up 1.0"):
        RoundingSettings(warm_up=1.0)
    with pytest.raises(UserError, match="learning_rate -1"):
        RoundingSettings(learning_rate=-1)
