"""Whether a backbone's quantizers are those that a recipe and its bits are meant for."""

from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel, quantizers_of
from tfcq.quantization.kinds import WEIGHT_QUANTIZERS
from tfcq.settings.policies import Policy
from tfcq.settings.recipes import Recipe


def check_drawn(
    backbone: QuantizableModel, weight_bits: str | None, activation_bits: str | None
) -> None:
    """Refuses candidates that were given where every layer's bits are fixed.

    Args:
        backbone: the backbone.
        weight_bits: candidates for weights, or None where none were given.
        activation_bits: candidates for activations, likewise.

    Raises:
        UserError: when they would change nothing.
    """
    for what, given, attribute in (
        ("weight", weight_bits, "weight_quantizer"),
        ("activation", activation_bits, "quantizer"),
    ):
        quantizers = quantizers_of(backbone, attribute).values()
        if given is not None and all(one.bits is not None for one in quantizers):
            raise UserError(
                f"{what}_bits={given!r} has no effect: the policy fixes the {what} bits of "
                "every layer; leave it out, or choose the policy 'paper' or 'uniform'."
            )


def check_quantizers(backbone: QuantizableModel, recipe: Recipe) -> None:
    """Refuses a quantizable backbone without the quantizers that are the recipe's method.

    Args:
        backbone: the backbone.
        recipe: the recipe.

    Raises:
        UserError: when it has others.
    """
    kinds = {type(one) for one in quantizers_of(backbone, "weight_quantizer").values()}
    own = recipe.policy_for(None).weight_quantizer
    if own != Policy("").weight_quantizer and WEIGHT_QUANTIZERS[own] not in kinds:
        raise UserError(
            f"Recipe {recipe.name!r} quantizes weights by {own!r}, and backbone "
            f"{backbone.name!r} has other quantizers; allowed: a float backbone, such as "
            "keras.Model or tfcq.nn.float_model.float_model(backbone)."
        )
