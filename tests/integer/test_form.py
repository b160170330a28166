"""The integer form: the network in float, and what its file computes in a quantized pass."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import tfcq
from tests.integer.conftest import randomize_norms
from tfcq.errors import UserError
from tfcq.evaluation.subject import at_policy
from tfcq.integer.form import deployable, is_form, told_refusal
from tfcq.integer.runtime import LiteModel
from tfcq.integer.writers import integers
from tfcq.integer.writing import written
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import calibrate
from tfcq.nn.float_model import requantizable
from tfcq.nn.layers import QuantizedDense
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.weights import with_stored_scales
from tfcq.quantization.minmax import MinMaxWeightQuantizer
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.policies import INT8

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3))
IMAGES = (PIXELS / 255).astype(np.float32)


def convolution(x, **settings):
    return layers.BatchNormalization()(layers.Conv2D(6, 3, **settings)(x))


def residual(x):
    x = layers.ReLU()(convolution(x, padding="same"))
    return layers.ReLU()(layers.Add()([x, convolution(x, padding="same")]))


def squeezed(x):
    x = layers.Activation("silu")(convolution(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(6, 1, activation="sigmoid")(gate)])


def branches(x):
    x = layers.ReLU(6.0)(convolution(layers.Rescaling(2.0, -1.0)(x)))
    pools = layers.MaxPooling2D, layers.AveragePooling2D
    parts = [pool(3, strides=1, padding="same")(x) for pool in pools]
    return layers.Concatenate()([*parts, layers.SeparableConv2D(4, 3, padding="same")(x)])


def nested(x):
    inputs = keras.Input((None, None, 6))
    inner = keras.Model(inputs, convolution(inputs, padding="same", activation="relu"))
    return inner(inner(convolution(x)))[:, ::2]


NETWORKS = {one.__name__: one for one in (residual, squeezed, branches, nested)}


# Runtimes round a tie of an average pool away from zero, of which borders have many.
APART = {"branches": 0.1}


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """A network and its calibrated form."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(NETWORKS[request.param](inputs))
    model = keras.Model(inputs, layers.Dense(5)(x), name=request.param)
    randomize_norms(model)
    form = deployable(model)
    calibrate(form, IMAGES)
    return model, form


def test_its_float_pass_is_the_networks(pair):
    model, form = pair
    np.testing.assert_allclose(form(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [8, 4, 2])
def test_its_quantized_pass_is_what_the_file_computes(pair, weights):
    _, form = pair
    made = written(form, BitWidth(weights, 8)).file
    step = made.tensors[made.operations[-1].inputs[0]].scale
    found = LiteModel(made.to_bytes())(IMAGES)
    simulated = form(IMAGES, precision=Precision(weights, 8)).numpy()
    differing = np.abs(found - simulated) > step / 2
    assert np.mean(differing) <= APART.get(form.name, 0.02)
    assert np.max(np.abs(found - simulated)) < 2.5 * step


def test_a_form_is_its_own_form_and_comes_back_from_a_file(pair, tmp_path):
    _, form = pair
    form.save(tmp_path / "form.keras")
    for copy in (deployable(form), load(tmp_path / "form.keras")):
        assert is_form(copy)
        ours, theirs = (one(IMAGES[:4], precision=Precision(4, 8)) for one in (form, copy))
        np.testing.assert_array_equal(ours, theirs)


def test_biases_are_multiples_of_the_scales_of_input_and_weights(pair):
    _, form = pair
    (layer, *_) = [one for one in form.layers if getattr(one, "integer_bias", False)]
    values, scale = layer.rounded_bias(Precision(8, 8))
    levels = values.numpy().ravel() / scale.numpy()
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    quantizer = form.get_layer(f"{form.layers[0].name}_quantizer")
    assert isinstance(quantizer, ActivationQuantizer)


def test_ranges_and_stored_scales_are_those_of_the_model(network, images):
    form = deployable(network)
    for layer in network.layers:
        if isinstance(layer, ActivationQuantizer):
            copy = form.get_layer(layer.name)
            assert (float(copy.minimum), float(copy.maximum)) == (
                float(layer.minimum), float(layer.maximum),
            )  # fmt: skip
    # Without the lowest level, which the sign of a factor would move to the other end.
    stored = with_stored_scales(requantizable(network, "int8"), 4, "mse")
    layer, copy = (one.get_layer("stage1_block1_conv1") for one in (stored, deployable(stored)))
    norm = network.get_layer("stage1_block1_conv1_norm")
    factor = np.abs(norm.gamma) / np.sqrt(norm.moving_variance + norm.epsilon)
    np.testing.assert_allclose(copy.learned_scale, layer.learned_scale * factor, rtol=1e-5)
    levels = [
        np.round(one.quantized_kernel(Precision(4, 8)) / one.learned_scale) for one in (layer, copy)
    ]
    np.testing.assert_array_equal(np.abs(levels[0]), np.abs(levels[1]))


def test_policies_fix_bits_of_a_float_models_layers_and_unknown_ones_are_named():
    model = tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1))
    policy = tfcq.Policy("mine", overrides=(("stage1_*", "5w8a"),))
    form = deployable(model, policy)
    assert form.get_layer("stage1_block1_conv1").weight_quantizer.bits == 5
    assert form.get_layer("stage2_block1_conv1").weight_quantizer.bits is None
    with pytest.raises(UserError, match="'stag1_\\*'.*nearest"):
        deployable(model, tfcq.Policy("mine", overrides=(("stag1_*", "5w8a"),)))


def test_bits_of_a_separable_convolution_are_those_of_both_its_kernels():
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3, name="mixed")(layers.Conv2D(2, 1)(inputs))
    model = keras.Model(inputs, x)
    form = deployable(model, overrides={"mixed": "5w8a"})
    quantizers = [form.get_layer(n).weight_quantizer for n in ("mixed_depthwise", "mixed")]
    assert [one.bits for one in quantizers] == [5, 5]
    with pytest.raises(UserError, match="'mixed_depthwise', which matches none.*nearest: mixed"):
        deployable(model, overrides={"mixed_depthwise": "5w8a"})


def test_constants_of_pixels_leave_the_first_kernel_its_bits():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 3, name="stem")(layers.Rescaling(2.0, -1.0, name="scaled")(inputs))
    form = deployable(keras.Model(inputs, layers.Conv2D(2, 3, name="next")(x)))
    bits = [form.get_layer(name).weight_quantizer.bits for name in ("scaled", "stem", "next")]
    assert bits == [8, 8, None]


def test_no_kernel_of_a_part_behind_others_is_the_first():
    inputs = keras.Input((8, 8, 4))
    part = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    for reads_images, bits in ((True, 8), (False, None)):
        form = deployable(part, reads_images=reads_images)
        assert form.get_layer("conv").weight_quantizer.bits == bits


def test_names_of_no_layer_are_told_whatever_the_model_is_and_before_what_it_lacks():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    plain = keras.Model(inputs, x)
    lacking = keras.Model(inputs, layers.GroupNormalization(2, name="norm")(x))
    for model in (plain, quantizable(plain, "int8"), lacking):
        with pytest.raises(UserError, match="'cnv', which matches none.*nearest: conv"):
            deployable(model, overrides={"cnv": "fp"})


def test_bits_for_a_quantizable_model_which_keeps_its_own_are_refused():
    inputs = keras.Input((8, 8, 1))
    model = quantizable(keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(inputs)), "int8")
    with pytest.raises(UserError, match="conv:4w8a .*keeps its own bits; allowed: conv:fp, or"):
        deployable(model, overrides={"conv": "4w8a"})
    form = deployable(model, overrides={"conv": "fp"})
    assert [layer.name for layer in form.layers if isinstance(layer, layers.Conv2D)] == ["conv"]
    assert form.get_layer("conv").__class__ is layers.Conv2D


@pytest.mark.parametrize("kind", ["lsq", "dorefa"])
def test_quantizers_of_other_grids_are_refused(kind):
    policy = tfcq.Policy("mine", weight_quantizer=kind)
    model = quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), policy)
    with pytest.raises(UserError, match="which int8 cannot reproduce; allowed: 'minmax'"):
        deployable(model)


@pytest.mark.parametrize("rounding", ["floor", "stochastic"])
def test_other_roundings_are_refused(rounding):
    policy = tfcq.Policy("mine", rounding=rounding)
    model = quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), policy)
    with pytest.raises(UserError, match="Model 'cifar_resnet8'.* with rounding"):
        deployable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), policy)
    with pytest.raises(UserError, match=f"rounding '{rounding}'; allowed in int8: 'nearest'"):
        deployable(model)
    deployable(requantizable(model, "int8"))


def test_what_export_will_refuse_is_told_before_and_the_network_quantized_all_the_same(capsys):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, activation="selu", name="wide")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    for one in (model, quantizable(model, "int8")):
        assert "'wide_activation' (activation 'selu')" in told_refusal(one)
    assert told_refusal(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1))) == ""
    made, _ = at_policy(model, INT8, quantizable)
    assert "tfcq.export would refuse" in capsys.readouterr().out and not is_form(made)


# As many numbers as channels, in another place.
ROWS = np.linspace(1, 2, 6, dtype=np.float32)[:, np.newaxis]
REFUSED = {
    "a softmax of rows": (lambda x: keras.ops.softmax(x, axis=1), "Softmax"),
    "an elu with an alpha": (lambda x: keras.ops.elu(x, alpha=0.3), "Elu"),
    "factors of rows": (lambda x: x * ROWS, "Multiply of a constant"),
    "a mask": (lambda x: keras.ops.multiply(ROWS[..., np.newaxis], x), "Multiply of a constant"),
    "positions": (lambda x: x + ROWS[np.newaxis], "Add of a constant"),
    "differences of rows": (lambda x: x - ROWS, "Subtract of a constant"),
    "slopes of rows": (
        layers.PReLU(shared_axes=(2, 3), alpha_initializer="uniform", name="slopes"),
        "PReLU",
    ),
    "a batch of pixels": (lambda x: keras.ops.reshape(x, (-1, 6)), "Reshape of the batch"),
    "a weighted mean": (lambda x: keras.ops.average(x, axis=1), "Average"),
    "channels first": (
        layers.GlobalAveragePooling2D(data_format="channels_first", name="pool"),
        "GlobalAveragePooling2D with data_format",
    ),
    "another axis": (lambda x: x * np.ones((1, 1, 1, 1, 6)), "Multiply of a constant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_no_int8_file_holds_are_refused_and_stay_in_float_where_asked(name):
    operation, words = REFUSED[name]
    inputs = keras.Input((8, 8, 1))
    outputs = operation(layers.Conv2D(6, 3)(inputs))
    model = keras.Model(inputs, outputs)
    (odd,) = {one.name for one in model.operations} - {one.name for one in model.layers[:2]}
    assert re.search(rf"in float at '{odd}' \({words}.*layer_bits={odd}:fp", told_refusal(model))
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    form = deployable(model, overrides={odd: "fp"})
    np.testing.assert_allclose(form(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("net", "Received str"),
        (layers.Dense(2), "Received Dense"),
        (keras.Sequential([layers.Dense(2)]), "not built; call build"),
    ],
)
def test_what_is_no_network_of_known_layers_is_told_as_received(given, words):
    with pytest.raises(UserError, match=words):
        deployable(given)


@pytest.mark.parametrize("bits", ["9w8a", "16w", "8w4a", "2a", "8w16a"])
def test_bits_of_a_layer_that_no_int8_file_holds_are_refused(bits):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    with pytest.raises(UserError, match=rf"conv:{bits} under policy int8.*allowed: conv:fp"):
        deployable(model, overrides={"conv": bits})


@pytest.mark.parametrize("bits", ["9w8a", "16w", "8w4a", "8w16a"])
def test_bits_of_a_quantizable_model_that_no_int8_file_holds_are_refused(bits):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Conv2D(2, 3, activation="relu", name="conv")(inputs))
    model = quantizable(keras.Model(inputs, layers.Dense(2)(model(inputs))), "int8", {"conv": bits})
    with pytest.raises(UserError, match=r"conv.* bits; allowed in int8: weights of 2 to 8 bits"):
        deployable(model)
    deployable(requantizable(model, "int8"))


def test_a_kernel_beyond_8_bits_is_never_written():
    layer = QuantizedDense(2, weight_quantizer=MinMaxWeightQuantizer(9, narrow_range=True))
    layer.build((None, 3))
    with pytest.raises(UserError, match="weights of level 255; allowed in int8: at most 127"):
        integers(layer, Precision(8, 8))
