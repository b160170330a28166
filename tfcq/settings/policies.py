"""Policies: which layers are quantized, and at which bits, as data."""

import dataclasses
import re
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.bitwidths import HIGHEST_BITS, LOWEST_BITS

DRAWN = "drawn"
FLOAT = "float"
Bits = int | str
ROUNDINGS = ("nearest", "floor", "stochastic")


@dataclasses.dataclass(frozen=True)
class QuantizerKind:
    """A kind of quantizer, as data; `tfcq.quantization.kinds` has its classes.

    Args:
        file: its file in `tfcq.quantization`, without `.py`.
        weights: its class for weights, None where it has none.
        activations: its class for activations, None where it has none.
        scale: name of the layer's weight that it learns its scale as, None where it learns none.
    """

    file: str
    weights: str | None = None
    activations: str | None = None
    scale: str | None = None


QUANTIZERS = {
    "minmax": QuantizerKind("minmax", "MinMaxWeightQuantizer", "MinMaxActivationQuantizer"),
    "asymmetric": QuantizerKind("minmax", "AsymmetricWeightQuantizer"),
    "linear": QuantizerKind("linear", "LinearWeightQuantizer", "LinearActivationQuantizer"),
    "lsq": QuantizerKind("lsq", "LSQWeightQuantizer", "LSQActivationQuantizer", "step_size"),
    "pact": QuantizerKind("pact", None, "PACTQuantizer", "clipping"),
    "dorefa": QuantizerKind("dorefa", "DoReFaWeightQuantizer", "DoReFaActivationQuantizer"),
}
WEIGHT_QUANTIZER_NAMES = tuple(name for name, kind in QUANTIZERS.items() if kind.weights)
ACTIVATION_QUANTIZER_NAMES = tuple(name for name, kind in QUANTIZERS.items() if kind.activations)
LEARNED_SCALES = tuple(kind.scale for kind in QUANTIZERS.values() if kind.scale)


@dataclasses.dataclass(frozen=True)
class LayerBits:
    """Bits of one layer: a number, `"drawn"` (the pass decides) or `"float"`.

    Args:
        weights: bits of the layer's kernel.
        activations: bits of the layer's output, after batch norm and activation function.
    """

    weights: Bits = DRAWN
    activations: Bits = DRAWN


def parse_layer_bits(text: str) -> LayerBits:
    """Reads `fp` (all float), `8w8a`, `8w` (weights only) or `8a` (activations only).

    Args:
        text: the bits of one layer, fixed for every pass.

    Raises:
        UserError: on any other form, and on bits outside 2 to 16.
    """
    if text == "fp":
        return LayerBits(FLOAT, FLOAT)
    match = re.fullmatch(r"(?:(\d{1,2})w)?(?:(\d{1,2})a)?", text)
    if text and match:
        given = [None if group is None else int(group) for group in match.groups()]
        if all(b is None or LOWEST_BITS <= b <= HIGHEST_BITS for b in given):
            return LayerBits(*(FLOAT if b is None else b for b in given))
    raise UserError(
        f"Unknown layer bits {text!r}; allowed: 'fp', '8w8a', '8w' or '8a' with "
        f"{LOWEST_BITS} to {HIGHEST_BITS} bits."
    )


def parse_bits_by_layer(text: str) -> tuple[tuple[str, str], ...]:
    """Reads `stem:8w8a,stage4_*:4w4a` as pairs of a pattern of layer names and bits.

    Args:
        text: the pairs; of two patterns that fit a layer the first counts.

    Raises:
        UserError: on any other form, a pattern that stands twice, and bits that
            `parse_layer_bits` refuses.
    """
    pairs: list[tuple[str, str]] = []
    for part in text.split(","):
        pattern, separator, bits = part.strip().rpartition(":")
        if not (pattern and separator):
            raise UserError(
                f"Layer bits {part.strip()!r} cannot be read; allowed: PATTERN:BITS, such as "
                "stem:8w8a."
            )
        parse_layer_bits(bits)
        if any(pattern == other for other, _ in pairs):
            raise UserError(f"Layer bits name {pattern!r} twice; name it once.")
        pairs.append((pattern, bits))
    return tuple(pairs)


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a float model becomes a quantizable one.

    Args:
        name: what the policy is called.
        default: bits of a layer that nothing else names.
        first: bits of the first layer with a kernel, `None` for the default.
        quantize_before_add: whether the output of a convolution (and its batch norm) that goes
            straight into a residual sum is quantized too; its sum always is.
        per_channel: one weight scale per output channel, or one per tensor.
        narrow_range: leave out the most negative weight level.
        rounding: `"nearest"`, `"floor"` or `"stochastic"`, of weights and activations.
        detach_scale: hold weight scales constant in the backward pass.
        weight_quantizer: kind of the weight quantizers, a name in `QUANTIZERS`.
        activation_quantizer: kind of the activation quantizers, a name in `QUANTIZERS`.
        overrides: pairs (pattern of layer names, bits as `parse_layer_bits` reads them); the
            first that matches wins.

    A setting that a chosen kind of quantizer does not know, such as `per_channel` with
    `"linear"`, must keep its default; `tfcq.quantizable` refuses it otherwise.

    Raises:
        UserError: on an unknown kind of quantizer.

    Example:

        >>> mine = tfcq.Policy("mine", weight_quantizer="asymmetric", overrides=(("stem", "8w8a"),))
        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)), mine)
        >>> encoder.get_layer("stem").weight_quantizer.bits
        8
    """

    name: str
    default: LayerBits = LayerBits()
    first: LayerBits | None = None
    quantize_before_add: bool = True
    per_channel: bool = True
    narrow_range: bool = False
    rounding: str = "nearest"
    detach_scale: bool = False
    weight_quantizer: str = "minmax"
    activation_quantizer: str = "minmax"
    overrides: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.weight_quantizer == "pact":
            raise UserError(
                "Weight quantizer 'pact' cannot be used: PACT quantizes activations; allowed for "
                f"weights: {', '.join(sorted(WEIGHT_QUANTIZER_NAMES))}. The nearest is 'dorefa'."
            )
        if self.weight_quantizer not in WEIGHT_QUANTIZER_NAMES:
            raise unknown_choice("weight quantizer", self.weight_quantizer, WEIGHT_QUANTIZER_NAMES)
        if self.activation_quantizer not in ACTIVATION_QUANTIZER_NAMES:
            raise unknown_choice(
                "activation quantizer", self.activation_quantizer, ACTIVATION_QUANTIZER_NAMES
            )

    def with_layer_bits(self, text: str | None) -> "Policy":
        """Returns the policy with bits of single layers, which come before its own overrides.

        Args:
            text: as `parse_bits_by_layer` reads it; None for the policy as it is.

        Raises:
            UserError: when it cannot be read.
        """
        if text is None:
            return self
        return dataclasses.replace(self, overrides=(*parse_bits_by_layer(text), *self.overrides))

    def with_quantizers(self, weights: str | None, activations: str | None) -> "Policy":
        """Returns the policy with other kinds of quantizers.

        What the policy says about rounding and scales was meant for its own kinds and goes with
        them.

        Args:
            weights: kind of the weight quantizers; None for the policy's own.
            activations: kind of the activation quantizers; None for the policy's own.
        """
        weights = weights or self.weight_quantizer
        activations = activations or self.activation_quantizer
        kinds: dict[str, Any] = {"weight_quantizer": weights, "activation_quantizer": activations}
        if weights != self.weight_quantizer:
            kinds["detach_scale"] = False
        if (weights, activations) != (self.weight_quantizer, self.activation_quantizer):
            kinds["rounding"] = "nearest"
        return dataclasses.replace(self, **kinds)


# SSQL's authors: the stem stays at 8 bits, and a convolution before a residual sum quantizes its
# weights only.
PAPER = Policy("paper", first=LayerBits(8, 8), quantize_before_add=False)
# The same as integer runtimes have it: every operand of a residual sum is quantized too, and the
# most negative weight level is left out.
INT8 = dataclasses.replace(PAPER, name="int8", quantize_before_add=True, narrow_range=True)
# Every kernel and every materialized activation at the bits of the pass.
UNIFORM = Policy("uniform", detach_scale=True)
# Contrastive Quant, Sec. 3.4 and Eq. 9: multiples of a step, for the whole tensor.
CONTRASTIVE_QUANT = Policy(
    "contrastive_quant", weight_quantizer="linear", activation_quantizer="linear"
)
# SSQL's projector: 8-bit weights, float activations.
WEIGHTS_8_BIT = Policy("weights_8_bit", default=LayerBits(8, FLOAT))
# Nothing is quantized, whatever the pass.
ALL_FLOAT = Policy("float", default=LayerBits(FLOAT, FLOAT))

POLICIES = {
    policy.name: policy for policy in (PAPER, INT8, UNIFORM, CONTRASTIVE_QUANT, WEIGHTS_8_BIT)
}


def policy_named(policy: str | Policy) -> Policy:
    """Returns the policy of a name, or the policy itself.

    Args:
        policy: a name in `POLICIES`, or a `Policy`.

    Raises:
        UserError: on an unknown name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise unknown_choice("policy", policy, POLICIES)
    return POLICIES[policy]
