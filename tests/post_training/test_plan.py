"""A plan takes the steps it names, in order, on a copy."""

import keras
import numpy as np
import pytest

from tests.post_training.networks import quantizable_network, residual_network, small_images
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.post_training.batch_norm import reestimate_batch_norm
from tfcq.post_training.bias_correction import correct_biases
from tfcq.post_training.equalization import equalize
from tfcq.post_training.graph import kernel_layers
from tfcq.post_training.mixed_precision import kernel_sizes
from tfcq.post_training.observation import observe
from tfcq.post_training.plan import Plan, PostTraining, check_plan
from tfcq.post_training.rounding import RoundingSettings, learn_rounding
from tfcq.post_training.weights import with_stored_scales
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import FLOAT, BitWidth

BITS = BitWidth(3, 4)
QUICK = RoundingSettings(iterations=30, batch_size=16, learning_rate=0.03)
IMAGES = small_images(32)


def outputs(model: QuantizableModel) -> np.ndarray:
    return model(IMAGES, precision=Precision(BITS.weights, BITS.activations)).numpy()


def steps_on_a_copy(model, change):
    """Returns a copy with min-max ranges and stored scales, changed by hand."""
    calibrate(model, IMAGES)
    copy = with_stored_scales(model, BITS.weights, "max")
    change(copy, model)
    return copy


@pytest.mark.parametrize(
    ("plan", "by_hand"),
    [
        (Plan(weight_scales="mse"), None),
        (
            Plan(rounding="adaround", learning=QUICK),
            lambda copy, model: learn_rounding(copy, model, IMAGES, BITS, "layer", QUICK),
        ),
        (
            Plan(rounding="block", learning=QUICK),
            lambda copy, model: learn_rounding(copy, model, IMAGES, BITS, "block", QUICK),
        ),
        (
            Plan(reestimate_batch_norm=True),
            lambda copy, model: reestimate_batch_norm(copy, IMAGES, BITS),
        ),
        (
            Plan(correct_biases=True),
            lambda copy, model: correct_biases(copy, model, IMAGES, BITS),
        ),
    ],
    ids=["scales", "adaround", "block", "batch norm", "biases"],
)
def test_each_step_is_the_function_it_names_and_leaves_the_model_as_it_was(plan, by_hand):
    model, other = quantizable_network(), quantizable_network()
    before = [w.numpy() for w in model.weights if w.name not in ("minimum", "maximum")]
    found = PostTraining(model, IMAGES, plan).at(BITS).model
    after = [w.numpy() for w in model.weights if w.name not in ("minimum", "maximum")]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    if by_hand is None:
        calibrate(other, IMAGES)
        expected = with_stored_scales(other, BITS.weights, "mse")
    else:
        expected = steps_on_a_copy(other, by_hand)
    np.testing.assert_array_equal(outputs(found), outputs(expected))
    assert np.any(outputs(found) != outputs(model))


# An average over batches of 32 images, see the plan; other ranges do not depend on batches.
@pytest.mark.parametrize(("method", "batch_size"), [("mse", 256), ("moving_average", 32)])
def test_a_plan_of_ranges_alone_runs_the_model_itself(method, batch_size):
    model, other = quantizable_network(), quantizable_network()
    images = small_images(80)
    quantized = PostTraining(model, images, Plan(calibration=method))
    assert quantized.at(BITS).model is model and quantized.at(FLOAT).model is model
    observe(other, images, batch_size).set_ranges(method, BITS.activations)
    np.testing.assert_array_equal(outputs(model), outputs(other))


def test_equalization_comes_first_and_ranges_are_those_of_the_equalized_network():
    model, other = quantizable_network(), quantizable_network()
    found = PostTraining(model, IMAGES, Plan(equalize=True, weight_scales="mse")).at(BITS).model
    equalized = copy_of(other)
    assert equalize(equalized)
    calibrate(equalized, IMAGES)
    expected = with_stored_scales(equalized, BITS.weights, "mse")
    np.testing.assert_array_equal(outputs(found), outputs(expected))
    np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])


def test_steps_follow_each_other_in_the_order_of_the_plan():
    plan = Plan(
        calibration="mse", weight_scales="mse", rounding="block", reestimate_batch_norm=True,
        correct_biases=True, learning=QUICK,
    )  # fmt: skip
    found = PostTraining(quantizable_network(), IMAGES, plan).at(BITS).model
    model = quantizable_network()
    observe(model, IMAGES).set_ranges("mse", BITS.activations)
    copy = with_stored_scales(model, BITS.weights, "mse")
    learn_rounding(copy, model, IMAGES, BITS, "block", QUICK)
    reestimate_batch_norm(copy, IMAGES, BITS)
    # What is restored are means behind norms of the same images, not of the training's crops.
    reference = copy_of(model)
    reestimate_batch_norm(reference, IMAGES, FLOAT)
    correct_biases(copy, reference, IMAGES, BITS)
    np.testing.assert_array_equal(outputs(found), outputs(copy))


def test_bit_widths_do_not_depend_on_those_asked_for_before():
    plan = Plan(calibration="mse", weight_scales="mse", mixed_precision=True)
    quantized = PostTraining(quantizable_network(), IMAGES, plan)
    first = outputs(quantized.at(BITS).model)
    outputs(quantized.at(BitWidth(8, 8)).model)
    np.testing.assert_array_equal(outputs(quantized.at(BITS).model), first)


def test_mixed_bits_do_not_depend_on_the_bits_asked_for_before():
    plan = Plan(mixed_precision=True)
    alone, behind = (PostTraining(quantizable_network(), IMAGES, plan) for _ in range(2))
    six = BitWidth(6, 6)
    behind.at(BitWidth(16, 16))
    found = behind.at(six).weight_bits
    assert found is not None and found == alone.at(six).weight_bits


def test_steps_that_a_model_does_not_allow_are_told_before_they_are_taken():
    flat = keras.Input((8,))
    dense = quantizable(keras.Model(flat, keras.layers.Dense(2)(flat)), "uniform")
    with pytest.raises(UserError, match="no batch norm to re-estimate"):
        check_plan(dense, Plan(reestimate_batch_norm=True))
    with pytest.raises(UserError, match="no pair of layers to equalize"):
        check_plan(dense, Plan(equalize=True))
    linear = quantizable_network("contrastive_quant")
    with pytest.raises(UserError, match="--policy=paper on the command line"):
        check_plan(linear, Plan(rounding="adaround"))
    with pytest.raises(UserError, match="no range to calibrate"):
        check_plan(linear, Plan(calibration="mse"))
    check_plan(linear, Plan())
    fixed = quantizable(residual_network(), "uniform", overrides={"*": "4w8a"})
    with pytest.raises(UserError, match="no layer to choose bits for"):
        check_plan(fixed, Plan(mixed_precision=True))


@pytest.mark.parametrize("policy", ["uniform", "paper"])
def test_mixed_bits_take_no_more_room_than_uniform_ones_and_fixed_ones_stay(policy):
    model = quantizable_network(policy)
    fixed = {layer.name: layer.weight_quantizer.bits for layer in kernel_layers(model)}
    sizes = kernel_sizes(model)
    uniform = {
        layer.name: layer.weight_quantizer.chosen_bits(BITS.weights)
        for layer in kernel_layers(model)
    }
    found = PostTraining(model, IMAGES, Plan(mixed_precision=True)).at(BITS)
    mixed = {layer.name: layer.weight_quantizer.bits for layer in kernel_layers(found.model)}
    assert found.weight_bits == mixed
    room = {name: sum(bits[n] * sizes[n] for n in sizes) for name, bits in
            (("uniform", uniform), ("mixed", mixed))}  # fmt: skip
    assert room["mixed"] <= room["uniform"]
    assert mixed != uniform
    assert {n: b for n, b in fixed.items() if b} == {n: mixed[n] for n, b in fixed.items() if b}


def test_unknown_names_and_bits_of_other_layers_are_refused():
    with pytest.raises(UserError, match="Did you mean 'adaround'"):
        Plan(rounding="adaruond")
    with pytest.raises(UserError, match="Did you mean 'mse'"):
        Plan(weight_scales="mes")
    with pytest.raises(UserError, match="Did you mean 'entropy'"):
        Plan(calibration="entropi")
    with pytest.raises(UserError, match="bits of every layer with a kernel"):
        with_stored_scales(quantizable_network(), {"stem": 4})
