"""Bits given by name reach the layers that the name stands for, or say which there are."""

import re

import keras
import pytest
from keras import layers

from tests.nn.test_quantizable import nested
from tfcq.errors import UserError
from tfcq.integer.form import deployable
from tfcq.nn.layer_bits import check_overrides, leaves_of
from tfcq.nn.quantizable import quantizable
from tfcq.nn.summary import layer_summaries
from tfcq.settings.policies import Policy


@pytest.mark.parametrize("pattern", ["inner", "inn*", "head"])
def test_bits_of_a_nested_model_are_those_of_each_layer_in_it(pattern):
    model = nested()
    inside = {"inner": "inner_conv", "inn*": "inner_conv", "head": "head_dense"}[pattern]
    for convert in (quantizable, deployable):
        found, named = (
            {row.layer.split("/")[-1]: row.weights for row in layer_summaries(copy)}
            for copy in (convert(model, overrides={name: "3w"}) for name in (pattern, inside))
        )
        assert found == named
        # The integer form has a layer of its own for each call.
        assert {n.removesuffix("_1") for n, bits in found.items() if bits == "3 bits"} == {inside}
        assert found.get("inner_conv_1", found["inner_conv"]) == found["inner_conv"]


def test_a_layer_of_the_same_name_outside_a_nested_model_is_not_changed_without_a_word():
    inner = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Conv2D(2, 3, name="conv")], name="inner"
    )
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, inner(layers.Conv2D(3, 1, name="conv")(inputs)))
    with pytest.raises(UserError, match="'inner', whose layer 'conv' shares its name with a layer"):
        quantizable(model, overrides={"inner": "fp"})
    assert quantizable(model, overrides={"*": "3w"}).get_layer("conv").weight_quantizer.bits == 3


@pytest.mark.parametrize("later", ["inner", "inner*", "*"])
def test_the_first_bits_that_match_a_layer_are_its_bits_in_the_integer_form_too(later):
    for convert in (quantizable, deployable):
        copy = convert(nested(), overrides={"inner_conv": "3w", later: "fp"})
        found = {row.layer.split("/")[-1]: row.weights for row in layer_summaries(copy)}
        assert found["inner_conv"] == "3 bits"
        copy = convert(nested(), overrides={"inner_conv": "fp", later: "3w"})
        found = {row.layer.split("/")[-1]: row.weights for row in layer_summaries(copy)}
        assert found["inner_conv"] == "float"


def test_a_misspelt_nested_model_is_told_its_name():
    for convert in (quantizable, deployable):
        with pytest.raises(UserError, match="'innr', which matches none.*the nearest: inner, "):
            convert(nested(), overrides={"innr": "fp"})


def test_bits_of_a_quantizer_alone_reach_no_layer():
    model = quantizable(nested())
    names = [layer.name for layer in leaves_of(model) if layer.name.endswith("_quantizer")]
    with pytest.raises(UserError, match="which matches none of") as told:
        deployable(model, overrides={names[0]: "fp"})
    assert "_quantizer" not in str(told.value).partition("nearest")[2]


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("stm", "stem, "), ("stage9_*", "stage1_conv, stage2_conv, "), ("*stem?", "stem, ")],
)
def test_pattern_that_matches_no_layer_names_the_nearest_alone(pattern, nearest):
    names = ["images", "stem", *(f"stage{n}_conv" for n in range(1, 5))]
    policy = Policy("mine", overrides=((pattern, "8w8a"),))
    told = f"{pattern!r}, which matches none of 6 layers"
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        check_overrides(policy, names)
    assert nearest in str(caught.value) and len(str(caught.value)) < 120
