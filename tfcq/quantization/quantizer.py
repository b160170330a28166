"""The base of the serializable quantizers.

Activation quantizers over a range (`takes_range`) are given what follows from it:

    parameters = quantizer.parameters(bits, minimum, maximum)
    quantizer(activations, parameters, seed)

All others are used alike:

    learned = quantizer.build(layer, shape, axes)       # a new weight of the layer, or None
    quantizer(tensor, bits, axes, seed, learned=learned)
"""

import inspect
from typing import Any, Self

import keras

from tfcq.settings.bitwidths import check_bits


class Quantizer:
    """What all quantizers share: perhaps fixed bits, perhaps a learned weight, a configuration.

    Args:
        bits: fixed bits, or None to take those of the pass.

    Raises:
        UserError: when bits are outside 2 to 16.
    """

    # Whether it quantizes over a given range, recorded or the tensor's own.
    takes_range = False
    # Whether a weight of the layer, trained with the others, decides the scale.
    learns_scale = False

    def __init__(self, bits: int | None = None) -> None:
        if bits is not None:
            check_bits(bits)
        self.bits = bits

    def build(
        self,
        layer: keras.layers.Layer,
        shape: tuple[int | None, ...],
        axes: list[int] | None = None,
    ) -> keras.Variable | None:
        """Adds what the quantizer learns to a layer; returns it, or None if it learns nothing.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the tensors to quantize.
            axes: the axes that one output channel spans; None for activations.
        """
        return None

    @property
    def is_stochastic(self) -> bool:
        """Whether it draws noise, and so needs a seed."""
        return getattr(self, "rounding", None) == "stochastic"

    def chosen_bits(self, bits: Any) -> Any:
        """Returns the fixed bits, or else those of the pass.

        Args:
            bits: int or int32 tensor of shape (), the bits of the pass.
        """
        return bits if self.bits is None else self.bits

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns the quantizer that `get_config` described."""
        return cls(**config)


class SignedQuantizer(Quantizer):
    """An activation quantizer that is told whether its tensors can be negative.

    Args:
        bits: fixed bits, or None to take those of the pass.
        signed: whether activations can be negative.

    Raises:
        UserError: when bits are outside 2 to 16.
    """

    def __init__(self, bits: int | None = None, signed: bool = False) -> None:
        super().__init__(bits)
        self.signed = signed
