"""Optimizers by name, and from settings."""

from collections.abc import Sequence
from typing import Any

import keras

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.durations import Duration, parse_duration
from tfcq.settings.training import scaled_learning_rate, total_steps
from tfcq.settings.training_groups import OptimizationSettings
from tfcq.training.exclusions import excluded
from tfcq.training.lars import LARS
from tfcq.training.schedules import learning_rate_schedule
from tfcq.training.sgd import SGD


@keras.saving.register_keras_serializable("tfcq")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW whose exclusions go by path, are checked and are part of its configuration.

    Weight decay is decoupled from the moments and multiplied by the learning rate (Loshchilov and
    Hutter, 2019, Algorithm 2).

    Args:
        learning_rate: a float or a Keras schedule.
        weight_decay: the decay's factor.
        beta_1: decay of the first moment.
        exclude: patterns of the variables without weight decay, such as `("bias", "gamma")`.
        **kwargs: as for `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.0,
        beta_1: float = 0.9,
        exclude: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, beta_1=beta_1, **kwargs
        )
        self.exclude = tuple(exclude or ())

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the moments of each variable.

        Args:
            variables: the variables to train.

        Raises:
            UserError: on a pattern of `exclude` that matches none of them.
        """
        if self.built:
            return
        if self.exclude:
            indices = excluded(variables, self.exclude)
            self.exclude_from_weight_decay(var_list=[variables[index] for index in indices])
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "exclude": list(self.exclude)}


OPTIMIZERS = {"sgd": SGD, "lars": LARS, "adamw": AdamW}


def optimizer_named(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    exclude: Sequence[str] | None = None,
    nesterov: bool = False,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer.

    Args:
        name: `"sgd"`, `"lars"` or `"adamw"`.
        learning_rate: a number or a Keras schedule.
        momentum: from 0 to below 1; beta_1 of AdamW.
        weight_decay: factor of the l2 penalty of SGD and LARS, of the decoupled decay of AdamW.
        exclude: patterns of the variables that are not decayed, nor scaled by LARS; None for the
            optimizer's own: biases and batch norm for LARS, nothing for the others.
        nesterov: whether SGD and LARS look ahead by one step of momentum.

    Raises:
        UserError: on an unknown name, and on an option that would change nothing.
    """
    if name not in OPTIMIZERS:
        raise unknown_choice("optimizer", name, OPTIMIZERS)
    kind = OPTIMIZERS[name]
    if exclude and not weight_decay and kind is not LARS:
        raise UserError(f"Exclusions of {name!r} have no effect without weight decay.")
    if nesterov and (kind is AdamW or not momentum):
        raise UserError("nesterov has no effect here; allowed: with sgd or lars and a momentum.")
    if isinstance(learning_rate, int):
        learning_rate = float(learning_rate)
    if kind is AdamW:
        return AdamW(learning_rate, weight_decay, beta_1=float(momentum), exclude=exclude)
    return kind(learning_rate, float(momentum), weight_decay, exclude, nesterov=nesterov)


def optimizer_from(settings: OptimizationSettings, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a run with its learning rate.

    Args:
        settings: the settings.
        steps: steps per epoch.

    Raises:
        UserError: on a warm-up or milestone outside the run.
    """

    def in_steps(duration: Duration) -> int:
        return duration.steps(steps, settings.batch_size)

    highest = settings.learning_rate
    if settings.scale_learning_rate:
        highest = scaled_learning_rate(highest, settings.batch_size)
    rate = learning_rate_schedule(
        settings.learning_rate_schedule,
        highest,
        total_steps(settings, steps),
        in_steps(parse_duration(settings.warmup)),
        tuple(map(in_steps, settings.milestone_durations())),
        settings.milestone_factor,
    )
    return optimizer_named(
        settings.optimizer,
        rate,
        settings.momentum,
        settings.weight_decay,
        settings.excluded(),
        settings.nesterov,
    )
