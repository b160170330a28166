"""What a call argument `precision` can be: `None` (float), `RecordRanges` or `Precision`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfcq.errors import unknown_choice
from tfcq.quantization.bitwidths import check_bits

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
        shared: a dictionary in which passes of one step keep what depends on weights and recorded
            ranges alone, so that it is computed once; None to keep nothing. Weights and ranges
            must not change while it is in use.

    Raises:
        UserError: on an unknown source of ranges, or a number of bits outside 2 to 16.
    """

    weight_bits: Any
    activation_bits: Any
    ranges: str = "recorded"
    seed: Any = None
    shared: dict | None = None

    def __post_init__(self) -> None:
        if self.ranges not in RANGE_SOURCES:
            raise unknown_choice("source of ranges", self.ranges, RANGE_SOURCES)
        for bits in (self.weight_bits, self.activation_bits):
            if bits is None or isinstance(bits, int):
                check_bits(bits)

    def once(self, owner: Any, compute: Callable[[], Any]) -> Any:
        """Returns a value that passes with the same `shared` compute once for each owner.

        Args:
            owner: the layer that the value belongs to.
            compute: computes the value.
        """
        if self.shared is None:
            return compute()
        # The owner is kept too: a freed object's id could be another's.
        _, value = self.shared.setdefault(id(owner), (owner, None))
        if value is None:
            value = compute()
            self.shared[id(owner)] = owner, value
        return value
