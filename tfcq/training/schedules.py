"""The learning rate over a run."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.training_groups import LEARNING_RATE_SCHEDULES


@keras.saving.register_keras_serializable("tfcq")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that falls at milestones, after a linear warm-up from zero.

        learning_rate * min(step / warmup_steps, 1) * factor ** (number of milestones <= step)

    Args:
        learning_rate: the highest rate.
        milestones: steps from which on the rate is lower; none for a constant rate.
        factor: what a milestone multiplies the rate by.
        warmup_steps: steps of linear warm-up.
    """

    def __init__(
        self,
        learning_rate: float,
        milestones: Sequence[int] = (),
        factor: float = 0.1,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.milestones = tuple(milestones)
        self.factor = factor
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate of a step, float32 of shape ().

        Args:
            step: index of the step, an integer or integer tensor of shape ().
        """
        step = tf.cast(step, tf.int64)
        passed = tf.math.count_nonzero(step >= tf.constant(self.milestones, tf.int64))
        rate = self.learning_rate * tf.pow(self.factor, tf.cast(passed, tf.float32))
        if self.warmup_steps:
            share = tf.cast(step, tf.float32) / float(self.warmup_steps)
            rate *= tf.minimum(share, 1.0)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "milestones": list(self.milestones),
            "factor": self.factor,
            "warmup_steps": self.warmup_steps,
        }


def learning_rate_schedule(
    kind: str,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of a run.

    Args:
        kind: `"cosine"` (down to zero after the last step), `"constant"`, or `"step"` (lower from
            each milestone on).
        learning_rate: the highest rate.
        steps: steps of the run, warm-up included.
        warmup_steps: steps of linear warm-up from zero; the rate is reached at this step.
        milestones: steps of the run, warm-up included, at which `"step"` lowers the rate.
        factor: what each milestone multiplies the rate by, between 0 and 1.

    Raises:
        UserError: on an unknown kind, a warm-up longer than the run, and milestones that the kind
            does not use, that are missing or that lie outside the run.
    """
    if kind not in LEARNING_RATE_SCHEDULES:
        raise unknown_choice("learning rate schedule", kind, LEARNING_RATE_SCHEDULES)
    if not 0 <= warmup_steps <= steps:
        raise UserError(
            f"Warm-up of {warmup_steps} steps in {steps}; allowed: 0 to {steps} (--warmup)."
        )
    if kind == "step":
        _check_milestones(milestones, warmup_steps, steps)
        if not 0 < factor < 1:
            raise UserError(f"Factor {factor} at a milestone; allowed: above 0 and below 1.")
    elif milestones:
        raise UserError(
            f"Learning rate schedule {kind!r} has no milestones, but received "
            f"{', '.join(map(str, milestones))}; leave them out, or use 'step'."
        )
    if kind == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else learning_rate,
            decay_steps=max(steps - warmup_steps, 1),
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if milestones or warmup_steps:
        return StepDecay(learning_rate, milestones, factor, warmup_steps)
    return float(learning_rate)


def _check_milestones(milestones: Sequence[int], warmup_steps: int, steps: int) -> None:
    """Refuses milestones that are missing, out of order, or would change nothing."""
    low, high = warmup_steps + 1, steps - 1
    if not milestones:
        raise UserError("Learning rate schedule 'step' needs milestones, such as 600,800.")
    for milestone in milestones:
        if not low <= milestone <= high:
            raise UserError(
                f"Milestone {milestone}; allowed: {low} to {high}, after the warm-up and before "
                "the last step's end."
            )
    ordered = sorted(set(milestones))
    if list(milestones) != ordered:
        raise UserError(
            f"Milestones {', '.join(map(str, milestones))} do not ascend. Did you mean "
            f"{', '.join(map(str, ordered))}?"
        )
