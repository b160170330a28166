"""Recipes: which (view, precision) passes a step makes and which pairs it compares, as text.

`v1@q->v2@fp` says: the prediction of view 1 at the drawn precision `q` meets the float target of
view 2. `v1@q1<->v2@q2` says so in both directions and counts as one pair. View 0 is the image
without augmentation.
"""

import dataclasses
import math
import re
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.policies import ALL_FLOAT, WEIGHTS_8_BIT, Policy, policy_named

FLOAT_PASS = "fp"
_PAIR = re.compile(r"(?:([\d.]+)\*)?v([012])@(fp|q\d*)(<?->)v([012])@(fp|q\d*)")


@dataclasses.dataclass(frozen=True, order=True)
class Pass:
    """One view through the network at one precision.

    Args:
        view: 1 or 2, or 0 for the image without augmentation.
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

    @property
    def ends(self) -> tuple[Pass, Pass]:
        """The two passes."""
        return self.prediction, self.target

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:g}*"
        return f"{weight}{self.prediction}->{self.target}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A table of pairs, and the settings that its paper uses where the user names none.

    Args:
        name: what the recipe is called.
        text: the pairs as the user reads them.
        pairs: the pairs, those written `<->` as two of half the weight.
        policy: name of the policy that places the quantizers.
        weight_bits: candidates of the drawn weight bits.
        activation_bits: candidates of the drawn activation bits.
        precision_set: candidates of bits drawn for weights and activations alike, instead of the
            two above; None to draw them apart.
        weight_quantizer: kind of the weight quantizer; None for the policy's own.
        activation_quantizer: kind of the activation quantizer; None for the policy's own.
        projector_policy: how the projector is quantized in quantized passes.
    """

    name: str
    text: str
    pairs: tuple[Pair, ...]
    policy: str = "paper"
    weight_bits: str = "2-8"
    activation_bits: str = "4-8"
    precision_set: str | None = None
    weight_quantizer: str | None = None
    activation_quantizer: str | None = None
    projector_policy: Policy = WEIGHTS_8_BIT

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Every pass once: float passes first, since they record the ranges of the others."""
        return in_order({end for pair in self.pairs for end in pair.ends})

    def online_passes(self, target_network: bool) -> tuple[Pass, ...]:
        """Returns the passes of the trained network, float ones first.

        Args:
            target_network: whether targets come from a network of their own.
        """
        return in_order({p.prediction for p in self.pairs}) if target_network else self.passes

    @property
    def draws(self) -> tuple[str, ...]:
        """The names of the precisions that each step draws."""
        return tuple(dict.fromkeys(p.precision for p in self.passes if not p.is_float))

    @property
    def views(self) -> tuple[int, ...]:
        """The views that a step needs, in the order in which batches hold them."""
        augmented = {p.view for p in self.passes} & {1, 2}
        plain = {p.view for p in self.passes} & {0}
        return tuple(sorted(augmented)) + tuple(plain)

    def bits(
        self, weight_bits: str | None, activation_bits: str | None, precision_set: str | None
    ) -> dict[str, str | None]:
        """Returns the candidates of the drawn bits: those given, else the recipe's own.

        Args:
            weight_bits: candidates for weights, or None.
            activation_bits: candidates for activations, or None.
            precision_set: candidates for both alike, or None.

        Raises:
            UserError: when candidates are given both apart and alike.
        """
        apart = weight_bits is not None or activation_bits is not None
        if apart and precision_set is not None:
            raise UserError(
                f"precision_set={precision_set!r} is drawn for weights and activations alike; "
                "leave it out to give weight_bits and activation_bits."
            )
        if not apart and (precision_set is not None or self.precision_set is not None):
            chosen = self.precision_set if precision_set is None else precision_set
            return {"weight_bits": None, "activation_bits": None, "precision_set": chosen}
        own = self.precision_set, self.precision_set
        if self.precision_set is None:
            own = self.weight_bits, self.activation_bits
        return {
            "weight_bits": own[0] if weight_bits is None else weight_bits,
            "activation_bits": own[1] if activation_bits is None else activation_bits,
            "precision_set": None,
        }

    def check_candidates(self, weights: tuple[int, ...], activations: tuple[int, ...]) -> None:
        """Refuses candidates with which a pair would compare a pass with its own copy.

        Args:
            weights: candidates of the drawn weight bits.
            activations: candidates of the drawn activation bits.

        Raises:
            UserError: when two drawn precisions of one view are compared and cannot differ.
        """
        for pair in self.pairs:
            one, other = pair.ends
            drawn = not one.is_float and not other.is_float
            if drawn and one.view == other.view and len(weights) == len(activations) == 1:
                raise UserError(
                    f"Recipe {self.name!r} compares {one} with {other}, which are the same at "
                    f"{weights[0]}w{activations[0]}a; allowed: two candidates and above, such as "
                    "6-16."
                )

    def policy_for(self, policy: str | Policy | None) -> Policy:
        """Returns a policy with the recipe's kinds of quantizers.

        Args:
            policy: the policy; None for that of the recipe's paper.
        """
        chosen = policy_named(self.policy if policy is None else policy)
        return chosen.with_quantizers(self.weight_quantizer, self.activation_quantizer)

    def is_mutual(self, pair: Pair) -> bool:
        """Whether the pair stands in the other direction too.

        A framework that trains both sides then lets the gradient into the target.

        Args:
            pair: one of the pairs.
        """
        return any(pair.ends == other.ends[::-1] for other in self.pairs)

    def __str__(self) -> str:
        return self.text


def in_order(passes: set[Pass]) -> tuple[Pass, ...]:
    """Returns passes in the order in which a step makes them, float passes first.

    Args:
        passes: the passes.
    """
    return tuple(sorted(passes, key=lambda p: (not p.is_float, p.precision, p.view)))


def parse_recipe(text: str, name: str = "custom", **settings: Any) -> Recipe:
    """Reads pairs such as `v1@q->v2@fp, 0.5*v1@fp<->v2@fp`.

    Args:
        text: comma-separated pairs, each with an optional positive weight.
        name: name of the recipe.
        **settings: further fields of `Recipe`.

    Raises:
        UserError: on a pair of another form, a pair of a pass with itself, a pair that stands
            twice, or a weight of zero.
    """
    pairs = []
    for entry in (part.strip() for part in text.split(",")):
        match = _PAIR.fullmatch(entry)
        if not match:
            raise UserError(
                f"Unknown pair {entry!r} in recipe {text!r}; allowed: [weight*]vN@P->vN@P (or "
                "<->) with N 0 to 2 and P 'fp', 'q', 'q1' or 'q2', for example 'v1@q->v2@fp'."
            )
        weight, view, precision, arrow, target_view, target_precision = match.groups()
        one, other = Pass(int(view), precision), Pass(int(target_view), target_precision)
        if one == other:
            raise UserError(f"Pair {entry!r} compares a pass with itself; allowed: two passes.")
        weight = _weight(entry, weight)
        if arrow == "->":
            pairs.append(Pair(one, other, weight))
        else:
            pairs += [Pair(one, other, weight / 2), Pair(other, one, weight / 2)]
    compared = [pair.ends for pair in pairs]
    for pair in pairs:
        if compared.count(pair.ends) > 1:
            raise UserError(
                f"Pair '{pair.prediction}->{pair.target}' stands twice in recipe {text!r}; name it "
                "once."
            )
    return Recipe(
        name, ", ".join(part.strip() for part in text.split(",")), tuple(pairs), **settings
    )


def _weight(entry: str, text: str | None) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = 0.0
    if not 0 < weight < math.inf:
        raise UserError(f"Weight in pair {entry!r} cannot be used; allowed: above zero.")
    return weight


_FLOAT = "v1@fp->v2@fp, v2@fp->v1@fp"
_PREDICTION = "v1@q->v2@fp, v2@q->v1@fp"
_TARGET = "v1@fp->v2@q, v2@fp->v1@q"
_BOTH = "v1@q->v2@q, v2@q->v1@q"
# Contrastive Quant: weights and activations at one precision (Eq. 3), 6-16 (Appendix B). It is the
# encoder that is quantized; heads are added behind it (Sec. 3.4).
_CONTRASTIVE_QUANT = {
    "policy": "contrastive_quant",
    "precision_set": "6-16",
    "projector_policy": ALL_FLOAT,
}
_CQ_B = "v1@q1<->v2@q1, v1@q2<->v2@q2"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # The framework as published, nothing quantized.
        parse_recipe(_FLOAT, "float"),
        # SSQL, Eq. 7: quantized branches predict float ones, with the auxiliary float loss.
        parse_recipe(f"{_FLOAT}, {_PREDICTION}", "ssql"),
        # SSQL, Eq. 6, and Table 8 (d), (e), (f), (h).
        parse_recipe(_PREDICTION, "ssql_no_aux"),
        # SSQL, Table 8 (b).
        parse_recipe(_TARGET, "quantized_target"),
        parse_recipe(f"{_FLOAT}, {_TARGET}", "quantized_target_aux"),
        # SSQL, Table 8 (c), (g).
        parse_recipe(_BOTH, "quantized_both"),
        parse_recipe(f"{_FLOAT}, {_BOTH}", "quantized_both_aux"),
        # Contrastive Quant, Eq. 4.
        parse_recipe("v1@q1<->v2@q2", "cq_a", **_CONTRASTIVE_QUANT),
        # Contrastive Quant, Eqs. 5 to 7.
        parse_recipe(_CQ_B, "cq_b", **_CONTRASTIVE_QUANT),
        # Contrastive Quant, Eq. 8.
        parse_recipe(f"{_CQ_B}, v1@q1<->v1@q2, v2@q1<->v2@q2", "cq_c", **_CONTRASTIVE_QUANT),
        # Contrastive Quant, Sec. 4.5: the precision is the only augmentation.
        parse_recipe("v0@q1<->v0@q2", "cq_quant", **_CONTRASTIVE_QUANT),
        # SSQL, Sec. 4.2, "SimSiam-PACT": one network for one bit-width, clipping learned.
        parse_recipe(
            _BOTH,
            "pact",
            weight_bits="4",
            activation_bits="4",
            weight_quantizer="dorefa",
            activation_quantizer="pact",
        ),
    )
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
    if "->" in recipe or "@" in recipe:
        return parse_recipe(recipe)
    if recipe not in RECIPES:
        raise unknown_choice("recipe", recipe, RECIPES)
    return RECIPES[recipe]
