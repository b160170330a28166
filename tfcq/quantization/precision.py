"""What a call argument `precision` can be: None (float), or one of the classes in this file."""

import dataclasses
import numbers
import zlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.bitwidths import check_bits
from tfcq.settings.generator import GENERATOR

RANGE_SOURCES = ("recorded", "tensor")


@dataclasses.dataclass(frozen=True, eq=False)
class RecordRanges:
    """Every activation quantizer records the range it sees, in a float pass or, as the argument
    `watch` of a `Precision`, in a quantized one.

    Args:
        reset: whether ranges start anew with this pass, or widen what earlier passes recorded.
            What a quantizer sees when it is called again in the same pass always widens.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> images = np.linspace(0, 1, 64, dtype="float32").reshape(1, 8, 8, 1)
        >>> features = encoder(images, precision=tfcq.RecordRanges(reset=True))
        >>> float(encoder.get_layer("stem_relu_quantizer").minimum)
        0.0
    """

    reset: bool
    _seen: set[int] = dataclasses.field(default_factory=set, init=False, repr=False)

    def starts(self, owner: Any) -> bool:
        """Returns whether a quantizer's range starts anew with this call, and notes the call.

        Args:
            owner: the quantizer's layer.
        """
        first = id(owner) not in self._seen
        self._seen.add(id(owner))
        return first and self.reset


@dataclasses.dataclass(frozen=True, eq=False)
class Observe:
    """Every activation quantizer shows its input and changes nothing, in a float pass or, as the
    argument `watch` of a `Precision`, in a quantized one.

    Args:
        see: called with the quantizer's layer and its input, a float tensor.
    """

    see: Callable[[Any, Any], None]


def check_pass(precision: Any) -> None:
    """Refuses what is no pass, which layers would otherwise take for a float one.

    Args:
        precision: the call argument of that name.

    Raises:
        UserError: when it is something else.
    """
    if precision is not None and not isinstance(precision, Precision | RecordRanges | Observe):
        raise UserError(
            f"precision={precision!r} was received; allowed: None, or tfcq.Precision(weight_bits, "
            "activation_bits)."
        )


def noise_seed(place: Any) -> tf.Tensor:
    """Returns the seed of stochastic rounding outside pre-training, int32 of shape (2,).

    It is fixed, so that an evaluation repeats; `--seed` varies other draws.

    Args:
        place: number of the batch or step, whose noise is the same whenever it is computed.
    """
    return tf.stack([0, tf.cast(place, tf.int32)])


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
    """A quantized pass.

    Args:
        weight_bits: int, or int32 tensor of shape (), bits of the weights.
        activation_bits: int, or int32 tensor of shape (), bits of the activations.
        ranges: where activation ranges come from: `"recorded"` by earlier `RecordRanges`
            passes, or `"tensor"`, the minimum and maximum of the tensor itself.
        seed: int32 tensor of shape (2,), needed by stochastic rounding only.
        shared: a dictionary in which passes of one step keep quantized weights and recorded ranges,
            so that they are made once; None to keep nothing. Neither may change while it is in use.
        watch: what activation quantizers do with their inputs besides: record their ranges or show
            them; None for nothing. Needs `ranges="tensor"`: a range that is being recorded cannot
            be used.

    Raises:
        UserError: on an unknown source of ranges, a number of bits outside 2 to 16, or `watch` with
            recorded ranges.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> images = np.linspace(0, 1, 64, dtype="float32").reshape(1, 8, 8, 1)
        >>> tfcq.calibrate(encoder, images)
        >>> encoder(images, precision=tfcq.Precision(weight_bits=4, activation_bits=8)).shape
        TensorShape([1, 8])
    """

    weight_bits: Any
    activation_bits: Any
    ranges: str = "recorded"
    seed: Any = None
    shared: dict | None = None
    watch: RecordRanges | Observe | None = None

    def __post_init__(self) -> None:
        if self.ranges not in RANGE_SOURCES:
            raise unknown_choice("source of ranges", self.ranges, RANGE_SOURCES)
        if self.watch is not None and self.ranges != "tensor":
            raise UserError(
                f"watch={type(self.watch).__name__} with ranges={self.ranges!r} was received; "
                "allowed with ranges='tensor'."
            )
        for bits in (self.weight_bits, self.activation_bits):
            if tf.is_tensor(bits) or isinstance(bits, tf.Variable):
                continue
            if bits is not None and not isinstance(bits, numbers.Integral):
                raise UserError(
                    f"Bits {bits!r} cannot be used; allowed: a whole number, or an int32 tensor."
                )
            check_bits(None if bits is None else int(bits))

    def seed_for(self, owner: Any, quantizer: Any) -> tf.Tensor | None:
        """Returns a seed of a layer's own, of shape (2,), so that no two layers share their noise.

        Args:
            owner: the layer.
            quantizer: what rounds its tensor; None is returned where it draws nothing.
        """
        if self.seed is None or not quantizer.is_stochastic:
            return None
        place = zlib.crc32(owner.path.encode()) & 0x7FFFFFFF
        return tf.random.experimental.stateless_fold_in(self.seed, place, alg=GENERATOR)

    def once(self, owner: Any, compute: Callable[[], Any]) -> Any:
        """Returns a value that passes with the same `shared` compute once for each owner.

        Args:
            owner: the layer that the value belongs to, perhaps with a name of the value.
            compute: computes the value.
        """
        if self.shared is None:
            return compute()
        # The owner is kept too: a freed object's id could be another's.
        key = _key(owner)
        _, value = self.shared.setdefault(key, (owner, None))
        if value is None:
            value = compute()
            self.shared[key] = owner, value
        return value

    def provide(self, owner: Any, value: Any) -> None:
        """Gives an owner's value to passes with the same `shared`, instead of one they compute.

        A layer with a kernel takes such a tensor as its quantized kernel.

        Args:
            owner: the layer that the value belongs to.
            value: the value.

        Raises:
            UserError: when the pass shares nothing.
        """
        if self.shared is None:
            raise UserError("A value was provided to a pass with shared=None; allowed: shared={}.")
        self.shared[_key(owner)] = owner, value


def _key(owner: Any) -> Any:
    """Returns what a layer, perhaps with a name of the value, is known by."""
    return (id(owner[0]), *owner[1:]) if isinstance(owner, tuple) else id(owner)
