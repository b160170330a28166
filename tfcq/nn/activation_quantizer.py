"""The layer that quantizes activations, over a recorded range or with a learned scale."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.nn.precision import TakesPrecision
from tfcq.nn.replicas import range_over_replicas
from tfcq.quantization.minmax import MinMaxActivationQuantizer
from tfcq.quantization.ops import NOT_FINITE, range_of
from tfcq.quantization.precision import Observe, Precision, RecordRanges, check_pass
from tfcq.quantization.quantizer import scale_dtype

# What `range_bits` holds where no quantized pass recorded.
FLOAT_PASS = (0, 0)


@keras.saving.register_keras_serializable("tfcq")
class ActivationQuantizer(TakesPrecision, keras.layers.Layer):
    """Identity in float passes; records or shows its input, or quantizes, when told to.

    The range is kept in two variables, `minimum` and `maximum` (float32, or float64 in a
    float64 model), which start as the empty range. `range_bits` (int32 [2]) says whose range it
    is: the weight and activation bits of the quantized passes that recorded it, zeros for float
    passes. `trained_quantized` (int32) is 1 where training quantized tensors over their own range.
    The range is recorded for every kind of quantizer, since deployment reads it; only kinds that
    take a range need it in quantized passes. A kind that learns a scale adds a trainable weight,
    `step_size` or `clipping`.

    Args:
        quantizer: quantizer of the activations; asymmetric per tensor by default.
        follows: name of the activation quantizer in the same model whose range it shares.
        synchronized: whether its range is that of the tensors of all replicas, or each replica's
            own; as for `keras.layers.BatchNormalization`.
        **kwargs: as for `keras.layers.Layer`.
    """

    # Gives the layer whose grid this one shares; `link_grids` sets it.
    leader: Any = None

    def __init__(
        self,
        quantizer: Any = None,
        follows: str | None = None,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.follows = follows
        self.synchronized = synchronized
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        self.quantizer = quantizer or MinMaxActivationQuantizer()
        self.accept_precision()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the range, and what the quantizer learns.

        Args:
            input_shape: shape of the activations.
        """
        self.minimum = self._end_of_range("minimum", np.inf)
        self.maximum = self._end_of_range("maximum", -np.inf)
        self.learned_scale = self.quantizer.build(self, input_shape)
        # Last, since files of before have neither.
        self.range_bits = self._whole_number("range_bits", (2,))
        self.trained_quantized = self._whole_number("trained_quantized", ())

    def _end_of_range(self, name: str, empty: float) -> keras.Variable:
        # Each replica keeps its range, of its own passes unless synchronized.
        return keras.Variable(
            initializer=keras.initializers.Constant(empty),
            shape=(),
            dtype=scale_dtype(self),
            trainable=False,
            autocast=False,
            synchronization="on_read",
            aggregation="mean",
            name=name,
        )

    def _whole_number(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return keras.Variable(
            initializer="zeros",
            shape=shape,
            dtype="int32",
            trainable=False,
            autocast=False,
            synchronization="on_read",
            aggregation="only_first_replica",
            name=name,
        )

    def call(self, inputs: tf.Tensor, precision: Precision | RecordRanges | Observe | None = None):
        """Returns the activations, quantized if `precision` is a `Precision`.

        Args:
            inputs: float tensor.
            precision: the pass.

        Raises:
            tf.errors.InvalidArgumentError: when a quantized pass needs a range that was never
                recorded.
        """
        precision = self.tell_outer(precision)
        check_pass(precision)
        if not isinstance(precision, Precision):
            self._watch(inputs, precision)
            return inputs
        self._watch(inputs, precision.watch, (precision.weight_bits, precision.activation_bits))
        ends = None
        if self.quantizer.takes_range and precision.ranges == "recorded":
            ends = precision.once(self, self._recorded_range)
        elif self.quantizer.takes_range:
            ends = self._range_of(inputs)
        return self.quantizer(
            inputs,
            precision.activation_bits,
            seed=precision.seed_for(self, self.quantizer),
            learned=self.learned_scale,
            ends=ends,
        )

    def parameters(self, precision: Precision) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns scale, zero point and highest level of a pass over the recorded range.

        Args:
            precision: the pass.
        """
        quantizer: Any = self.quantizer
        if self.leader is not None:
            return self.leader().parameters(precision)
        if quantizer.takes_range:
            ends = precision.once(self, self._recorded_range)
        else:
            ends = (tf.zeros((), scale_dtype(self)),) * 2
        return quantizer.parameters(precision.activation_bits, *ends)

    def _recorded_range(self) -> tuple[tf.Tensor, tf.Tensor]:
        if self.leader is not None:
            return self.leader()._recorded_range()
        # The empty range is infinite, so this also tells of a range never recorded.
        minimum = tf.debugging.check_numerics(
            self.minimum.value,
            f"Activation quantizer {self.name!r} has no recorded range, or one with {NOT_FINITE}; "
            "call tfcq.calibrate(model, images) before a quantized pass",
        )
        return minimum, tf.convert_to_tensor(self.maximum.value)

    def _watch(
        self,
        inputs: tf.Tensor,
        watch: RecordRanges | Observe | None,
        bits: tuple[Any, Any] = FLOAT_PASS,
    ) -> None:
        if isinstance(watch, Observe):
            watch.see(self, inputs)
        if not isinstance(watch, RecordRanges):
            return
        minimum, maximum = self._range_of(tf.stop_gradient(inputs))
        if not watch.starts(self):
            minimum = tf.minimum(minimum, self.minimum.value)
            maximum = tf.maximum(maximum, self.maximum.value)
        self.set_range(minimum, maximum, bits)

    def _range_of(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ends = range_of(inputs)
        return range_over_replicas(*ends) if self.synchronized else ends

    def set_range(self, minimum: Any, maximum: Any, bits: tuple[Any, Any] = FLOAT_PASS) -> None:
        """Sets the range and whose it is.

        Args:
            minimum: float, lower end.
            maximum: float, upper end.
            bits: weight and activation bits of the passes it is of; zeros for float ones.
        """
        self.minimum.assign(minimum)
        self.maximum.assign(maximum)
        self.range_bits.assign(tf.stack(bits))

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Reads all weights, as Keras asks for; files that do not say whose ranges have float ones.

        Args:
            store: what they are read from.
        """
        values = {place: store[place] for place in store.keys()}  # noqa: SIM118 - not a dictionary
        for place, value in ((-2, np.array(FLOAT_PASS)), (-1, np.array(0))):
            values.setdefault(str(len(self.weights) + place), value)
        super().load_own_variables(values)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration and the quantizer's."""
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        config = {**super().get_config(), "quantizer": quantizer}
        # What is as usual stays out, so that earlier versions read the file.
        own = {"follows": self.follows, "synchronized": self.synchronized}
        return config | {name: value for name, value in own.items() if value}
