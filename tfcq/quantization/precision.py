"""What a call argument `precision` can be: `None` (float), `RecordRanges` or `Precision`."""

import dataclasses
from typing import Any

from tfcq.errors import unknown_choice
from tfcq.quantization.bitwidths import BitWidth

RANGE_SOURCES = ("recorded", "tensor")


@dataclasses.dataclass(frozen=True, eq=False)
class RecordRanges:
    """A float pass in which every activation quantizer records the range it sees.

    Args:
        reset: whether ranges start anew with this pass, or widen what earlier passes recorded.
    """

    reset: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
    """A quantized pass.

    Args:
        weight_bits: int, or int32 tensor of shape (), bits of the weights.
        activation_bits: int, or int32 tensor of shape (), bits of the activations.
        ranges: where activation ranges come from: `"recorded"` by earlier `RecordRanges`
            passes, or `"tensor"`, the minimum and maximum of the tensor itself.
        seed: int32 tensor of shape (2,), needed by stochastic rounding only.

    Raises:
        UserError: on an unknown source of ranges.
    """

    weight_bits: Any
    activation_bits: Any
    ranges: str = "recorded"
    seed: Any = None

    def __post_init__(self) -> None:
        if self.ranges not in RANGE_SOURCES:
            raise unknown_choice("source of ranges", self.ranges, RANGE_SOURCES)


def precision_of(bits: BitWidth) -> Precision | None:
    """Returns the pass that a bit-width names; `None`, the float pass, for `fp`."""
    return None if bits.is_float else Precision(bits.weights, bits.activations)
