"""Recipes as text and as tables."""

import pytest

from tfcq.errors import UserError
from tfcq.settings.recipes import RECIPES, Pair, Pass, parse_recipe, recipe_named

V1, V2 = Pass(1, "fp"), Pass(2, "fp")
Q1, Q2 = Pass(1, "q"), Pass(2, "q")


def text_of(pairs):
    return [f"{pair.weight:g}*{pair.prediction}->{pair.target}" for pair in pairs]


def test_contrastive_quant_recipes_are_its_equations():
    assert text_of(RECIPES["cq_a"].pairs) == ["0.5*v1@q1->v2@q2", "0.5*v2@q2->v1@q1"]
    same_precision = [
        "0.5*v1@q1->v2@q1", "0.5*v2@q1->v1@q1", "0.5*v1@q2->v2@q2", "0.5*v2@q2->v1@q2",
    ]  # fmt: skip
    same_view = [
        "0.5*v1@q1->v1@q2", "0.5*v1@q2->v1@q1", "0.5*v2@q1->v2@q2", "0.5*v2@q2->v2@q1",
    ]  # fmt: skip
    assert text_of(RECIPES["cq_b"].pairs) == same_precision
    assert text_of(RECIPES["cq_c"].pairs) == same_precision + same_view
    assert text_of(RECIPES["cq_quant"].pairs) == ["0.5*v0@q1->v0@q2", "0.5*v0@q2->v0@q1"]
    for name in ("cq_a", "cq_b", "cq_c", "cq_quant"):
        assert RECIPES[name].precision_set == "6-16"
        assert RECIPES[name].policy_for(None).name == "contrastive_quant"


def test_pact_learns_its_clipping_at_fixed_bits():
    for policy in (RECIPES["pact"].policy_for(None), RECIPES["pact"].policy_for("int8")):
        assert (policy.weight_quantizer, policy.activation_quantizer) == ("dorefa", "pact")
    assert RECIPES["pact"].bits(None, None, None) == {
        "weight_bits": "4", "activation_bits": "4", "precision_set": None,
    }  # fmt: skip


def test_bits_given_replace_the_recipes():
    ssql, cq = RECIPES["ssql"], RECIPES["cq_c"]
    assert ssql.bits("4", None, None)["weight_bits"] == "4"
    assert ssql.bits("4", None, None)["activation_bits"] == "4-8"
    assert ssql.bits(None, None, "4-6")["precision_set"] == "4-6"
    assert cq.bits("2-8", "4-8", None)["precision_set"] is None
    # Not those of SSQL, which no recipe of Contrastive Quant has.
    assert cq.bits(None, "8", None)["weight_bits"] == cq.precision_set
    assert cq.bits(None, None, "8") == {
        "weight_bits": None, "activation_bits": None, "precision_set": "8",
    }  # fmt: skip
    with pytest.raises(UserError, match="drawn for weights and activations alike"):
        cq.bits("2-8", None, "4-8")


def test_views_of_a_recipe():
    assert RECIPES["ssql"].views == (1, 2)
    assert RECIPES["cq_quant"].views == (0,)
    assert parse_recipe("v0@q->v2@fp").views == (2, 0)


def test_mutual_pairs_stand_in_both_directions():
    recipe = parse_recipe("v1@fp->v2@fp, v2@fp->v1@fp, v1@q->v2@fp, v1@q1<->v2@q2")
    mutual = [str(pair.prediction) for pair in recipe.pairs if recipe.is_mutual(pair)]
    assert mutual == ["v1@fp", "v2@fp", "v1@q1", "v2@q2"]


def test_a_pass_is_not_compared_with_itself():
    with pytest.raises(UserError, match="compares a pass with itself"):
        parse_recipe("v1@q<->v1@q")


def test_known_recipes_are_the_papers():
    assert RECIPES["float"].pairs == (Pair(V1, V2), Pair(V2, V1))
    assert RECIPES["ssql"].pairs == (Pair(V1, V2), Pair(V2, V1), Pair(Q1, V2), Pair(Q2, V1))
    assert RECIPES["ssql_no_aux"].pairs == (Pair(Q1, V2), Pair(Q2, V1))
    # SSQL, Table 8: prediction and target of each row, without and with the auxiliary loss.
    table8 = {
        "quantized_target": (Pair(V1, Q2), Pair(V2, Q1)),
        "quantized_both": (Pair(Q1, Q2), Pair(Q2, Q1)),
    }
    for name, pairs in table8.items():
        assert RECIPES[name].pairs == pairs
        assert RECIPES[f"{name}_aux"].pairs == (*RECIPES["float"].pairs, *pairs)
    assert RECIPES["pact"].pairs == table8["quantized_both"]
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe_named(name) is recipe


def test_float_passes_come_first_and_every_pass_once():
    assert RECIPES["ssql"].passes == (V1, V2, Q1, Q2)
    assert RECIPES["ssql_no_aux"].passes == (V1, V2, Q1, Q2)
    assert RECIPES["float"].passes == (V1, V2)
    mixed = parse_recipe("v2@q2->v1@q1, v1@q1->v2@q2, v2@q1->v1@fp")
    assert list(map(str, mixed.passes)) == ["v1@fp", "v1@q1", "v2@q1", "v2@q2"]


def test_draws():
    assert RECIPES["float"].draws == ()
    assert RECIPES["ssql"].draws == ("q",)
    quantized = parse_recipe("v1@q2->v2@q1, v2@q1->v1@q2")
    assert quantized.draws == ("q1", "q2")


@pytest.mark.parametrize(
    "text",
    [
        "v1@q->v2@fp",
        "2*v1@q1<->v2@q2",
        "0.5*v2@q1->v1@q2, v1@fp->v2@fp",
        "v1@q1->v1@q2, 2*v1@q2->v1@q1",
    ],
)
def test_text_round_trips(text):
    recipe = parse_recipe(text, "mine")
    assert str(recipe) == text
    assert recipe.name == "mine"
    assert recipe_named(text) == parse_recipe(text)
    assert recipe_named(recipe) is recipe


def test_weights_are_read():
    assert [pair.weight for pair in parse_recipe("0.25*v1@q->v2@fp, v2@q->v1@fp").pairs] == [
        0.25,
        1,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1@fp<-v2@fp",
        "v3@fp->v1@fp",
        "v1@f->v2@fp",
        "v1@q->v2",
        "v1@q->v2@fp,",
        "-1*v1@q->v2@fp",
    ],
)
def test_unknown_pair_shows_the_form(text):
    with pytest.raises(UserError, match="Unknown pair .* allowed: .* for example 'v1@q->v2@fp'"):
        parse_recipe(text)


@pytest.mark.parametrize("weight", ["0", "0.0", "1.2.3", "."])
def test_weight_must_be_above_zero(weight):
    with pytest.raises(UserError, match="Weight in pair .* allowed: above zero"):
        parse_recipe(f"{weight}*v1@q->v2@fp")


def test_pair_named_twice_is_refused():
    with pytest.raises(UserError, match="stands twice"):
        parse_recipe("v1@q->v2@fp, 2*v1@q->v2@fp")


def test_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'ssql'"):
        recipe_named("sqsl")


def test_recipe_is_a_value():
    assert parse_recipe(str(RECIPES["ssql"]), "ssql") == RECIPES["ssql"]
