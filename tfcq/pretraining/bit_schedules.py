"""Which bit-widths each step draws: pure functions of (seed, step)."""

import math

import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.bitwidths import BIT_SCHEDULES, parse_bit_choices
from tfcq.settings.generator import GENERATOR

# Keep the draws of a step independent of each other.
_WEIGHTS, _ACTIVATIONS, _ROUNDING, _SHUFFLING, _TARGETS_ROUNDING = 1, 2, 3, 4, 5


class BitSchedule:
    """Draws weight and activation bits for a step.

    Args:
        weight_bits: candidates as `parse_bit_choices` reads them: `"2-8"`, `"4"` or `"2,4,8"`;
            SSQL uses 2-8 (Sec. 3.2).
        activation_bits: likewise; SSQL uses 4-8. None of both beside `precision_set` alone.
        kind: `"uniform"` draws each candidate with the same probability, anew each step;
            `"epoch"` draws so once for each period; `"cyclic"` rises from the first candidate to
            the last along a half cosine within each period (Fu et al. 2021, cyclic precision
            training); `"list"` goes through the candidates in order, over and over, each draw of a
            step one candidate ahead of the one before; `"fixed"` has one candidate. Draws of one
            step may be equal.
        seed: seed of the draws.
        precision_set: candidates drawn for weights and activations alike, as Contrastive Quant
            does (Sec. 4.1); replaces the two above.

    Raises:
        UserError: on an unknown kind, bits that cannot be used, or several candidates for
            `"fixed"`.
    """

    def __init__(
        self,
        weight_bits: str | None = "2-8",
        activation_bits: str | None = "4-8",
        kind: str = "uniform",
        seed: int = 0,
        precision_set: str | None = None,
    ) -> None:
        if kind not in BIT_SCHEDULES:
            raise unknown_choice("bit schedule", kind, BIT_SCHEDULES)
        self.weight_choices = parse_bit_choices(precision_set or weight_bits or "")
        self.activation_choices = parse_bit_choices(precision_set or activation_bits or "")
        self.same_bits = precision_set is not None
        for choices in (self.weight_choices, self.activation_choices):
            if kind == "fixed" and len(choices) > 1:
                raise UserError(
                    f"Bit schedule 'fixed' received candidates {', '.join(map(str, choices))}; "
                    f"allowed: one, such as {choices[0]}."
                )
        self.kind = kind
        self.seed = seed

    def draw(self, step: tf.Tensor, count: int, period: tf.Tensor | int = 1) -> tf.Tensor:
        """Returns the bits of a step, int32 [count, 2]: weight and activation bits of each draw.

        Args:
            step: int64 tensor of shape (), the step, from 0.
            count: how many precisions the step draws.
            period: int64 tensor of shape () or int, steps of a period, for `"epoch"` and
                `"cyclic"`; the Pretrainer takes an epoch's.
        """
        weights = self._draw(step, count, period, self.weight_choices, _WEIGHTS)
        if self.same_bits:
            return tf.stack([weights, weights], axis=1)
        activations = self._draw(step, count, period, self.activation_choices, _ACTIVATIONS)
        return tf.stack([weights, activations], axis=1)

    def rounding_seed(self, step: tf.Tensor, targets: bool = False) -> tf.Tensor:
        """Returns the seed of a step's stochastic rounding, of shape (2,).

        Args:
            step: int64 tensor of shape (), the step, from 0.
            targets: whether of the momentum network, whose noise is its own.
        """
        return self._seed(step, _TARGETS_ROUNDING if targets else _ROUNDING)

    def shuffling_seed(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the seed of a step's shuffling over replicas, of shape (2,).

        Args:
            step: int64 tensor of shape (), the step, from 0.
        """
        return self._seed(step, _SHUFFLING)

    def _seed(self, step: tf.Tensor, salt: int) -> tf.Tensor:
        seed = tf.constant([self.seed, salt])
        return tf.random.experimental.stateless_fold_in(seed, step, alg=GENERATOR)

    def _draw(
        self,
        step: tf.Tensor,
        count: int,
        period: tf.Tensor | int,
        choices: tuple[int, ...],
        salt: int,
    ) -> tf.Tensor:
        step, period = tf.cast(step, tf.int64), tf.cast(period, tf.int64)
        places = tf.range(count, dtype=tf.int64)
        if self.kind in ("list", "fixed"):
            index = (step + places) % len(choices)
        elif self.kind == "cyclic":
            # The draws of one step lie evenly apart on the cycle.
            place = (step + places * period // count) % period
            turn = tf.cast(place, tf.float64) / tf.cast(period, tf.float64)
            risen = (1 - tf.cos(math.pi * turn)) / 2
            index = tf.cast(tf.round(risen * (len(choices) - 1)), tf.int64)
        else:
            block = step // period if self.kind == "epoch" else step
            seed = self._seed(block, salt)
            index = tf.random.stateless_uniform(
                [count], seed, 0, len(choices), tf.int32, alg=GENERATOR
            )
        return tf.gather(tf.constant(choices, tf.int32), index)
