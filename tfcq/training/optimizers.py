"""Stochastic gradient descent as the papers use it, and its learning rate over a run."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import unknown_choice

SCHEDULES = ("cosine", "constant")


@keras.saving.register_keras_serializable("tfcq")
class SGD(keras.optimizers.SGD):
    """Keras's SGD with an l2 penalty in the gradient, so that momentum accumulates it too.

    Keras's own `weight_decay` is decoupled: with momentum 0.9 it shrinks weights ten times less
    for the same number. The papers' figures are of this form:

        gradient + l2 * weight

    Args:
        learning_rate: a float or a Keras schedule.
        momentum: from 0 to below 1.
        l2: the penalty's factor, applied to every trainable variable.
        **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(
        self, learning_rate: Any = 0.05, momentum: float = 0.9, l2: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.l2 = l2

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable.

        Args:
            gradient: gradient of the loss, of the variable's shape.
            variable: the variable.
            learning_rate: float tensor of shape ().
        """
        if self.l2:
            gradient = gradient + self.l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "l2": self.l2}


def learning_rate_schedule(
    kind: str, learning_rate: float, steps: int, warmup_steps: int = 0
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of a run.

    Args:
        kind: `"cosine"` (down to zero after the last step) or `"constant"`.
        learning_rate: the highest rate.
        steps: steps of the run, warm-up included.
        warmup_steps: steps of linear warm-up from zero.

    Raises:
        UserError: on an unknown kind.
    """
    if kind not in SCHEDULES:
        raise unknown_choice("learning rate schedule", kind, SCHEDULES)
    if kind == "constant" and not warmup_steps:
        return learning_rate
    # A cosine that never decays is a constant after its warm-up.
    lowest = 1.0 if kind == "constant" else 0.0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        alpha=lowest,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
