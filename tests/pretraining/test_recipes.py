"""Recipes as text and as tables."""

import pytest

from tfcq.errors import UserError
from tfcq.pretraining.recipes import RECIPES, Pair, Pass, Recipe, parse_recipe, recipe_named

V1, V2 = Pass(1, "fp"), Pass(2, "fp")
Q1, Q2 = Pass(1, "q"), Pass(2, "q")


def test_known_recipes_are_the_papers():
    assert RECIPES["float"].pairs == (Pair(V1, V2), Pair(V2, V1))
    assert RECIPES["ssql"].pairs == (Pair(V1, V2), Pair(V2, V1), Pair(Q1, V2), Pair(Q2, V1))
    assert RECIPES["ssql_no_aux"].pairs == (Pair(Q1, V2), Pair(Q2, V1))
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe_named(name) is recipe


def test_float_passes_come_first_and_every_pass_once():
    assert RECIPES["ssql"].passes == (V1, V2, Q1, Q2)
    assert RECIPES["ssql_no_aux"].passes == (V1, V2, Q1, Q2)
    assert RECIPES["float"].passes == (V1, V2)
    mixed = parse_recipe("v2@q2->v1@q1, v1@q1->v2@q2, v2@q1->v1@fp")
    assert list(map(str, mixed.passes)) == ["v1@fp", "v1@q1", "v2@q1", "v2@q2"]


def test_draws_and_ranges():
    assert RECIPES["float"].draws == ()
    assert RECIPES["ssql"].draws == ("q",)
    assert RECIPES["ssql"].range_source == "recorded"
    quantized = parse_recipe("v1@q2->v2@q1, v2@q1->v1@q2")
    assert quantized.draws == ("q1", "q2")
    assert quantized.range_source == "tensor"


@pytest.mark.parametrize(
    "text", ["v1@q->v2@fp", "0.5*v2@q1->v1@q2, v1@fp->v2@fp", "v1@q1->v1@q2, 2*v1@q2->v1@q1"]
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
    "text", ["", "v3@fp->v1@fp", "v1@f->v2@fp", "v1@q->v2", "v1@q->v2@fp,", "-1*v1@q->v2@fp"]
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
    assert Recipe("a", RECIPES["ssql"].pairs) == Recipe(
        "a", parse_recipe(str(RECIPES["ssql"])).pairs
    )
