"""Stochastic gradient descent as the papers use it."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcq.training.exclusions import excluded


@keras.saving.register_keras_serializable("tfcq")
class SGD(keras.optimizers.SGD):
    """Keras's SGD with an l2 penalty in the gradient, so that momentum accumulates it too.

    Keras's own `weight_decay` is decoupled: with momentum 0.9 it shrinks weights ten times less
    for the same number. The papers' figures are of this form:

        gradient + l2 * weight

    Args:
        learning_rate: a float or a Keras schedule.
        momentum: from 0 to below 1.
        l2: the penalty's factor.
        exclude: patterns of the variables without penalty, such as `("bias", "gamma", "beta")`;
            none by default, as in the papers.
        **kwargs: as for `keras.optimizers.SGD`.
    """

    # What `exclude=None` stands for.
    standard_exclusions: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: Any = 0.05,
        momentum: float = 0.9,
        l2: float = 0.0,
        exclude: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.l2 = l2
        self.exclude = None if exclude is None else tuple(exclude)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the momentum of each variable.

        Args:
            variables: the variables to train.

        Raises:
            UserError: on a pattern of `exclude` that matches none of them.
        """
        if self.built:
            return
        self.excluded = excluded(variables, self.exclude, self.standard_exclusions)
        super().build(variables)
        # A mirrored variable is updated through the copies that it holds.
        self._indices = {
            id(one): index
            for index, variable in enumerate(variables)
            for one in (variable.value, *getattr(variable.value, "values", ()))
        }

    def index(self, variable: Any) -> int:
        """Returns a variable's index among those that the optimizer was built for.

        Args:
            variable: as `update_step` receives it: TensorFlow's own variable, which has no path.
        """
        return self._indices[id(variable)]

    def direction(self, gradient: tf.Tensor, variable: Any) -> tf.Tensor:
        """Returns what momentum accumulates, of the variable's shape and the gradient's dtype.

        Args:
            gradient: gradient of the loss, of the variable's shape.
            variable: the variable.
        """
        if self.l2 and self.index(variable) not in self.excluded:
            gradient = gradient + self.l2 * tf.convert_to_tensor(variable)
        return gradient

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Updates one variable.

        Args:
            gradient: gradient of the loss, of the variable's shape.
            variable: the variable.
            learning_rate: float tensor of shape ().
        """
        super().update_step(self.direction(gradient, variable), variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        exclude = None if self.exclude is None else list(self.exclude)
        return {**super().get_config(), "l2": self.l2, "exclude": exclude}
