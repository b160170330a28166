"""Which bit-widths each step draws: pure functions of (seed, step)."""

import tensorflow as tf

from tfcq.errors import unknown_choice
from tfcq.quantization.bitwidths import parse_bit_choices

BIT_SCHEDULES = ("uniform", "list")
# Keep the two draws of a step independent of each other.
_WEIGHTS, _ACTIVATIONS, _ROUNDING = 1, 2, 3


class BitSchedule:
    """Draws weight and activation bits for a step.

    Args:
        weight_bits: candidates as `parse_bit_choices` reads them: `"2-8"`, `"4"` (fixed) or
            `"2,4,8"`; SSQL uses 2-8 (Sec. 3.2).
        activation_bits: likewise; SSQL uses 4-8.
        kind: `"uniform"` draws each candidate with the same probability, anew each step;
            `"list"` goes through the candidates in order, over and over.
        seed: seed of the uniform draws.

    Raises:
        UserError: on an unknown kind or bits that cannot be used.
    """

    def __init__(
        self,
        weight_bits: str = "2-8",
        activation_bits: str = "4-8",
        kind: str = "uniform",
        seed: int = 0,
    ) -> None:
        if kind not in BIT_SCHEDULES:
            raise unknown_choice("bit schedule", kind, BIT_SCHEDULES)
        self.weight_choices = parse_bit_choices(weight_bits)
        self.activation_choices = parse_bit_choices(activation_bits)
        self.kind = kind
        self.seed = seed

    def draw(self, step: tf.Tensor, count: int) -> tf.Tensor:
        """Returns the bits of a step, int32 [count, 2]: weight and activation bits of each draw.

        Args:
            step: int64 tensor of shape (), the step, from 0.
            count: how many precisions the step draws.
        """
        columns = [
            self._draw(step, count, choices, salt)
            for choices, salt in (
                (self.weight_choices, _WEIGHTS),
                (self.activation_choices, _ACTIVATIONS),
            )
        ]
        return tf.stack(columns, axis=1)

    def rounding_seed(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the seed of a step's stochastic rounding, of shape (2,).

        Args:
            step: int64 tensor of shape (), the step, from 0.
        """
        return self._seed(step, _ROUNDING)

    def _seed(self, step: tf.Tensor, salt: int) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(tf.constant([self.seed, salt]), step)

    def _draw(self, step: tf.Tensor, count: int, choices: tuple[int, ...], salt: int) -> tf.Tensor:
        if self.kind == "list":
            index = (tf.cast(step, tf.int64) * count + tf.range(count, dtype=tf.int64)) % len(
                choices
            )
        else:
            seed = self._seed(step, salt)
            index = tf.random.stateless_uniform([count], seed, 0, len(choices), tf.int32)
        return tf.gather(tf.constant(choices, tf.int32), index)
