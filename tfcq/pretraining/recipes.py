"""Recipes: which (view, precision) passes a step makes and which pairs it compares, as text.

`v1@q->v2@fp` says: the prediction of view 1 at the drawn precision `q` meets the float target of
view 2. Needs no TensorFlow.
"""

import dataclasses
import re

from tfcq.errors import UserError, unknown_choice

FLOAT_PASS = "fp"
_PAIR = re.compile(r"(?:([\d.]+)\*)?v([12])@(fp|q\d*)->v([12])@(fp|q\d*)")


@dataclasses.dataclass(frozen=True, order=True)
class Pass:
    """One view through the network at one precision.

    Args:
        view: 1 or 2.
        precision: `"fp"`, or the name of a drawn precision: `"q"`, `"q1"`, `"q2"`, ...
    """

    view: int
    precision: str

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized in this pass."""
        return self.precision == FLOAT_PASS

    def __str__(self) -> str:
        return f"v{self.view}@{self.precision}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prediction compared with a target.

    Args:
        prediction: the pass that is trained to predict.
        target: the pass it predicts.
        weight: positive weight of the pair's loss.
    """

    prediction: Pass
    target: Pass
    weight: float = 1.0

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:g}*"
        return f"{weight}{self.prediction}->{self.target}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A table of pairs; the step's loss is their weighted mean.

    Args:
        name: what the recipe is called.
        pairs: the pairs.
    """

    name: str
    pairs: tuple[Pair, ...]

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Every pass once: float passes first, since they record the ranges of the others."""
        named = {p for pair in self.pairs for p in (pair.prediction, pair.target)}
        return tuple(sorted(named, key=lambda p: (not p.is_float, p.precision, p.view)))

    @property
    def draws(self) -> tuple[str, ...]:
        """The names of the precisions that each step draws."""
        return tuple(dict.fromkeys(p.precision for p in self.passes if not p.is_float))

    @property
    def range_source(self) -> str:
        """`"recorded"` where float passes of the step can record ranges, else `"tensor"`."""
        return "recorded" if any(p.is_float for p in self.passes) else "tensor"

    def __str__(self) -> str:
        return ", ".join(map(str, self.pairs))


def parse_recipe(text: str, name: str = "custom") -> Recipe:
    """Reads pairs such as `v1@q->v2@fp, 0.5*v2@q->v1@fp`.

    Args:
        text: comma-separated pairs, each with an optional positive weight.
        name: name of the recipe.

    Raises:
        UserError: on a pair of another form, a pair that stands twice, or a weight of zero.
    """
    pairs = []
    for entry in (part.strip() for part in text.split(",")):
        match = _PAIR.fullmatch(entry)
        if not match:
            raise UserError(
                f"Unknown pair {entry!r} in recipe {text!r}; allowed: [weight*]vN@P->vN@P with N "
                "1 or 2 and P 'fp', 'q', 'q1' or 'q2', for example 'v1@q->v2@fp'."
            )
        weight, view, precision, target_view, target_precision = match.groups()
        try:
            weight = float(weight or 1)
        except ValueError:
            weight = 0.0
        if weight <= 0:
            raise UserError(f"Weight in pair {entry!r} cannot be used; allowed: above zero.")
        target = Pass(int(target_view), target_precision)
        pairs.append(Pair(Pass(int(view), precision), target, weight))
    compared = [(pair.prediction, pair.target) for pair in pairs]
    for pair in pairs:
        if compared.count((pair.prediction, pair.target)) > 1:
            raise UserError(f"Pair '{pair}' stands twice in recipe {text!r}; name it once.")
    return Recipe(name, tuple(pairs))


_FLOAT_PAIRS = "v1@fp->v2@fp, v2@fp->v1@fp"
_SSQL_PAIRS = "v1@q->v2@fp, v2@q->v1@fp"

RECIPES = {
    name: parse_recipe(text, name)
    for name, text in {
        # The framework as published, nothing quantized.
        "float": _FLOAT_PAIRS,
        # SSQL, Eq. 7: quantized branches predict float ones, with the auxiliary float loss.
        "ssql": f"{_FLOAT_PAIRS}, {_SSQL_PAIRS}",
        # SSQL, Eq. 6.
        "ssql_no_aux": _SSQL_PAIRS,
    }.items()
}


def recipe_named(recipe: str | Recipe) -> Recipe:
    """Returns the recipe of a name, of a text with `->`, or the recipe itself.

    Args:
        recipe: a name in `RECIPES`, a recipe's text, or a `Recipe`.

    Raises:
        UserError: on an unknown name or a text that cannot be read.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if "->" in recipe:
        return parse_recipe(recipe)
    if recipe not in RECIPES:
        raise unknown_choice("recipe", recipe, RECIPES)
    return RECIPES[recipe]
