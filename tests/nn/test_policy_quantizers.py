"""Which quantizers a policy chooses, with which options, and where tensors count as signed."""

import dataclasses

import keras
import pytest
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.placement import place, read_graph
from tfcq.nn.quantizable import quantizable, quantizers_of
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.linear import LinearActivationQuantizer, LinearWeightQuantizer
from tfcq.quantization.lsq import LSQActivationQuantizer, LSQWeightQuantizer
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer
from tfcq.settings.policies import (
    ACTIVATION_QUANTIZER_NAMES,
    POLICIES,
    ROUNDINGS,
    UNIFORM,
    WEIGHT_QUANTIZER_NAMES,
    Policy,
)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(2, 3, activation="relu", name="conv"),
         layers.Flatten(), layers.Dense(2, name="dense")]
    )  # fmt: skip


def chosen(model):
    """Returns the weight quantizer and the activation quantizer of the first layer."""
    return model.get_layer("conv").weight_quantizer, model.get_layer("conv_quantizer").quantizer


def test_names_known_without_tensorflow_are_those_of_the_tables():
    assert set(WEIGHT_QUANTIZER_NAMES) == set(WEIGHT_QUANTIZERS)
    assert set(ACTIVATION_QUANTIZER_NAMES) == set(ACTIVATION_QUANTIZERS)


@pytest.mark.parametrize("activation", ACTIVATION_QUANTIZER_NAMES)
@pytest.mark.parametrize("weight", WEIGHT_QUANTIZER_NAMES)
def test_policy_chooses_the_kinds(model, weight, activation):
    policy = Policy("mine", weight_quantizer=weight, activation_quantizer=activation)
    kinds = [type(quantizer) for quantizer in chosen(quantizable(model, policy))]
    assert kinds == [WEIGHT_QUANTIZERS[weight], ACTIVATION_QUANTIZERS[activation]]


def test_contrastive_quant_is_linear_to_the_nearest_at_the_bits_of_the_pass(model):
    policy = POLICIES["contrastive_quant"]
    kinds = LinearWeightQuantizer, LinearActivationQuantizer
    quantizers = chosen(quantizable(model, "contrastive_quant"))
    for quantizer, kind in zip(quantizers, kinds, strict=True):
        assert type(quantizer) is kind
        assert quantizer.get_config() == {"bits": None, "rounding": "nearest"}
    graph = read_graph(keras.Model(model.inputs, model.outputs).get_config())
    assert place(graph, policy) == place(graph, UNIFORM)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("paper", {}),  # SSQL's authors: the gradient also flows through the scale.
        ("int8", {"narrow_range": True}),
        ("uniform", {"detach_scale": True}),
        ("weights_8_bit", {"bits": 8}),
    ],
)
def test_policies_differ_from_the_default_weight_quantizer_in_what_they_name(model, name, settings):
    found = quantizable(model, name).get_layer("dense").weight_quantizer
    assert type(found) is MinMaxWeightQuantizer
    assert found.get_config() == MinMaxWeightQuantizer(**settings).get_config()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounding_is_the_policys_for_weights_and_activations(model, rounding):
    mixed = Policy("mixed", activation_quantizer="linear", rounding=rounding)
    weights, activations = chosen(quantizable(model, mixed))
    assert (weights.rounding, activations.rounding) == (rounding, rounding)


def test_bits_of_single_layers_come_before_the_policys_own_overrides():
    policy = dataclasses.replace(UNIFORM, overrides=(("conv", "8w8a"),))
    assert policy.with_layer_bits("c*:3w5a").overrides == (("c*", "3w5a"), ("conv", "8w8a"))


def test_other_kinds_leave_behind_what_was_said_for_the_old_ones():
    policy = dataclasses.replace(UNIFORM, rounding="stochastic")
    other = policy.with_quantizers("lsq", None)
    assert (other.rounding, other.detach_scale) == ("nearest", False)
    other = policy.with_quantizers(None, "linear")
    assert (other.rounding, other.detach_scale) == ("nearest", True)
    for same in (None, "minmax"):
        assert policy.with_quantizers(same, same) == policy


def test_the_stem_is_the_kernel_that_reads_the_images_in_nested_models_too():
    def bits_of(first):
        inputs = keras.Input((6, 6, 2))
        x = layers.Conv2D(2, 3, activation="relu", name="one")(inputs)
        inner = keras.Model(inputs, layers.Conv2D(2, 3, name="two")(x), name="inner")
        images = keras.Input((6, 6, 2))
        before = inner(images) if first else layers.Conv2D(2, 1, name="outer")(images)
        after = layers.Conv2D(2, 1, name="outer")(before) if first else inner(before)
        model = quantizable(keras.Model(images, after), "paper")
        return {name: one.bits for name, one in quantizers_of(model, "weight_quantizer").items()}

    assert bits_of(first=True) == {"inner/one": 8, "inner/two": None, "outer": None}
    assert bits_of(first=False) == {"outer": 8, "inner/one": None, "inner/two": None}


def test_options_reach_the_kinds_that_take_them(model):
    policy = Policy("mine", per_channel=False, weight_quantizer="lsq", activation_quantizer="lsq")
    weights, activations = chosen(quantizable(model, policy, {"conv": "3w5a"}))
    assert type(weights) is LSQWeightQuantizer
    assert weights.get_config() == {"bits": 3, "per_channel": False}
    assert type(activations) is LSQActivationQuantizer
    assert activations.get_config() == {"bits": 5, "signed": False}


def test_default_policy_has_the_default_quantizers(model):
    for quantizer, kind in zip(
        chosen(quantizable(model, Policy("default"))),
        (MinMaxWeightQuantizer, MinMaxActivationQuantizer),
        strict=True,
    ):
        assert quantizer.get_config() == kind().get_config()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"weight_quantizer": "linear", "per_channel": False},
            "Policy 'odd' sets per_channel=False, which weight_quantizer 'linear' cannot use; "
            "allowed with minmax, lsq. Leave it at True, or take 'minmax'.",
        ),
        (
            {"weight_quantizer": "lsq", "narrow_range": True},
            "Policy 'odd' sets narrow_range=True, which weight_quantizer 'lsq' cannot use; "
            "allowed with minmax. Leave it at False, or take 'minmax'.",
        ),
        (
            {"weight_quantizer": "dorefa", "detach_scale": True},
            "Policy 'odd' sets detach_scale=True, which weight_quantizer 'dorefa' cannot use; "
            "allowed with minmax, asymmetric. Leave it at False, or take 'minmax'.",
        ),
        (
            {"activation_quantizer": "pact", "rounding": "floor"},
            "Policy 'odd' sets rounding='floor', which activation_quantizer 'pact' cannot use; "
            "allowed with minmax, linear. Leave it at 'nearest', or take 'minmax'.",
        ),
    ],
)
def test_setting_that_a_kind_cannot_use_is_refused(model, fields, message):
    # Also where the overrides leave nothing to quantize.
    for overrides in ({}, {"*": "fp"}):
        with pytest.raises(UserError) as caught:
            quantizable(model, Policy("odd", **fields), overrides)
        assert str(caught.value) == message


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(UserError, match="Unknown weight quantizer 'linaer'.*Did you mean 'linear'"):
        Policy("odd", weight_quantizer="linaer")
    with pytest.raises(UserError, match="Unknown activation quantizer 'pakt'.*mean 'pact'"):
        Policy("odd", activation_quantizer="pakt")


def test_pact_for_weights_is_refused_with_the_nearest():
    with pytest.raises(UserError) as caught:
        dataclasses.replace(UNIFORM, weight_quantizer="pact")
    assert str(caught.value) == (
        "Weight quantizer 'pact' cannot be used: PACT quantizes activations; allowed for weights: "
        "asymmetric, dorefa, linear, lsq, minmax. The nearest is 'dorefa'."
    )


def signed_outputs(*functions):
    """Returns which of some functions between two convolutions count as signed."""
    signed = []
    for function in functions:
        inputs = keras.Input((8, 8, 2))
        x = function(layers.Conv2D(2, 3, name="conv")(inputs))
        model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))
        placement = place(read_graph(model.get_config()), UNIFORM)
        (output,) = placement.outputs
        signed.append(output in placement.signed)
    return signed


def test_outputs_of_relus_sigmoids_and_softmax_are_unsigned():
    functions = [
        layers.ReLU(), layers.ReLU(6.0), keras.ops.relu, keras.ops.relu6, keras.ops.sigmoid,
        layers.Softmax(), layers.Activation("relu"), layers.Activation("sigmoid"),
        lambda x: layers.MaxPooling2D(2)(layers.ReLU()(x)),
        layers.Conv2D(2, 1, activation="relu6"),
    ]  # fmt: skip
    # The last model has another convolution between the two.
    last = functions.pop()
    assert signed_outputs(*functions) == [False] * len(functions)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 3, name="one")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(last(x)))
    placement = place(read_graph(model.get_config()), UNIFORM)
    assert placement.signed == {"one"} < set(placement.outputs)


def test_all_other_outputs_are_signed():
    functions = [
        layers.LeakyReLU(), layers.ReLU(negative_slope=0.1), keras.ops.tanh, keras.ops.gelu,
        layers.Activation("silu"), layers.Activation(keras.layers.ReLU()),
        layers.BatchNormalization(),
    ]  # fmt: skip
    assert signed_outputs(*functions) == [True] * len(functions)


def test_values_kept_behind_a_relu_stay_unsigned_and_new_values_do_not():
    inputs = keras.Input((8, 8, 2))
    x = layers.ReLU(name="relu")(layers.Conv2D(2, 3, name="conv")(inputs))
    kept = layers.Activation("linear", name="kept")(layers.MaxPooling2D(2)(x))
    made = layers.BatchNormalization(name="made")(layers.MaxPooling2D(2)(x))
    total = layers.Add(name="sum")([kept, made])
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(total))
    placement = place(read_graph(model.get_config()), UNIFORM)
    assert {"relu", "kept", "made", "sum"} <= set(placement.outputs)
    assert placement.signed & {"relu", "kept", "made", "sum"} == {"made", "sum"}


def test_image_side_of_a_graph_is_signed():
    inputs = keras.Input((8, 8, 2))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Activation("linear", name="a")(inputs)))
    placement = place(read_graph(model.get_config()), UNIFORM, reads_images=False)
    assert placement.signed == {"a"}


@pytest.mark.parametrize("kind", ["lsq", "pact", "dorefa"])
def test_signs_reach_the_quantizers(kind):
    inputs = keras.Input((8, 8, 2))
    x = layers.ReLU(name="relu")(layers.Conv2D(2, 3, padding="same", name="conv")(inputs))
    x = layers.Add(name="sum")([x, layers.Conv2D(2, 3, padding="same", name="branch")(x)])
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))
    model = quantizable(model, Policy("mine", activation_quantizer=kind))
    signs = {
        layer.name.removesuffix("_quantizer"): layer.quantizer.signed
        for layer in model.layers
        if isinstance(layer, ActivationQuantizer)
    }
    assert signs == {"relu": False, "branch": True, "sum": True}
