"""What all quantizers share: one form of call, and the weight that a layer keeps for them.

    learned = quantizer.build(layer, shape, axes)           # a new weight of the layer, or None
    quantizer(tensor, bits, axes, seed, learned, ends)      # the tensor as its quantized values

A family is a file: pure functions, and classes whose `quantize` is given a `Request`.
"""

import dataclasses
import inspect
from typing import Any, Self

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.settings.bitwidths import check_bits


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """How one tensor is to be quantized: the call, and what the quantizer itself fixes.

    Args:
        bits: int or int32 tensor of shape ().
        axes: the axes that share a scale; None for all (per tensor).
        seed: int32 tensor of shape (2,), for stochastic rounding.
        learned: what `Quantizer.build` returned.
        ends: lower and upper end of a recorded range, each of shape (); None for none.
    """

    bits: Any
    axes: list[int] | None
    seed: tf.Tensor | None
    learned: keras.Variable | None
    ends: tuple[tf.Tensor, tf.Tensor] | None


class Quantizer:
    """The base of all quantizers: perhaps fixed bits, perhaps a learned weight, a configuration.

    Args:
        bits: fixed bits, or None to take those of the pass.

    Raises:
        UserError: when bits are outside 2 to 16.
    """

    # Whether it quantizes over a given range, recorded or the tensor's own.
    takes_range = False
    # Whether a weight of the layer, trained with the others, decides the scale.
    learns_scale = False
    # Of kinds whose constructors do not ask.
    per_channel = False
    rounding = "nearest"

    def __init__(self, bits: int | None = None) -> None:
        if bits is not None:
            check_bits(bits)
        self.bits = bits

    def __call__(
        self,
        tensor: tf.Tensor,
        bits: Any,
        axes: list[int] | None = None,
        seed: tf.Tensor | None = None,
        learned: keras.Variable | None = None,
        ends: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Returns a tensor as its quantized values.

        Args:
            tensor: float tensor, weights or activations.
            bits: int or int32 tensor of shape (), the bits of the pass.
            axes: the axes that one output channel spans; None for activations.
            seed: int32 tensor of shape (2,), needed by stochastic rounding.
            learned: what `build` returned.
            ends: lower and upper end of the recorded range, each a float tensor of shape ();
                None where none was recorded: a kind that `takes_range` then takes the tensor's.

        Raises:
            UserError: without axes where each channel has a scale, or without a learned scale.
        """
        if self.per_channel and axes is None:
            raise UserError(
                f"{type(self).__name__} has a scale for each channel and received no axes; "
                "allowed: the axes that one output channel spans, such as [0, 1, 2]."
            )
        if self.learns_scale and learned is None:
            raise UserError(
                f"{type(self).__name__} received no learned scale; allowed: what `build` returned."
            )
        axes = self._shared_axes(axes)
        return self.quantize(tensor, Request(self.chosen_bits(bits), axes, seed, learned, ends))

    def quantize(self, tensor: tf.Tensor, request: Request) -> tf.Tensor:
        """Returns a tensor as its quantized values; each family has its own.

        Args:
            tensor: float tensor.
            request: how.
        """
        raise NotImplementedError

    def scale(
        self, tensor: tf.Tensor, bits: Any, axes: list[int] | None, learned: Any
    ) -> tf.Tensor:
        """Returns the distance of levels of weights; kinds whose levels are multiples of one.

        Args:
            tensor: float tensor.
            bits: int or int32 tensor of shape (), the bits of the pass.
            axes: the axes that one output channel spans.
            learned: what `build` returned.
        """
        raise NotImplementedError

    def build(
        self,
        layer: keras.layers.Layer,
        shape: tuple[int | None, ...],
        axes: list[int] | None = None,
    ) -> keras.Variable | None:
        """Adds the weight that holds the scale to a layer; returns it, or None if there is none.

        Args:
            layer: the layer that calls the quantizer.
            shape: shape of the tensors to quantize.
            axes: the axes that one output channel spans; None for activations.
        """
        axes = self._shared_axes(axes)
        row: tuple[int | None, ...] = ()
        if axes is not None:
            row = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        weight = self.scale_weight(row)
        if weight is None:
            return None
        return layer.add_weight(**weight, dtype=scale_dtype(layer), autocast=False)

    def scale_weight(self, shape: tuple[int | None, ...]) -> dict[str, Any] | None:
        """Returns the arguments of `keras.layers.Layer.add_weight` for the weight of `build`.

        Args:
            shape: shape of scales that broadcast against the tensors to quantize.
        """
        return None

    def _shared_axes(self, axes: list[int] | None) -> list[int] | None:
        return axes if self.per_channel else None

    @property
    def is_stochastic(self) -> bool:
        """Whether it draws noise, and so needs a seed."""
        return self.rounding == "stochastic"

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


def scale_dtype(layer: keras.layers.Layer) -> str:
    """Returns the dtype of a layer's ranges and scales: float64 if its weights are, else float32.

    Args:
        layer: the layer.
    """
    return "float64" if layer.variable_dtype == "float64" else "float32"
