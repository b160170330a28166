"""LARS, the optimizer of large batches: a learning rate for each layer by its norms."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.settings.policies import LEARNED_SCALES
from tfcq.training.exclusions import matching
from tfcq.training.sgd import SGD

# Learned step sizes (LSQ) and clipping levels (PACT) scale their own gradients; a trust ratio
# would move each of them by the same share at every step, whatever its gradient.
QUANTIZER_SCALES = tuple(f"*{name}" for name in LEARNED_SCALES)


def trust_ratio(weights: tf.Tensor, gradient: tf.Tensor, coefficient: float) -> tf.Tensor:
    """Returns how far a layer's weights are trusted to move, of shape ().

        coefficient * |weights| / |gradient|, and 1 where either norm is zero

    with Euclidean norms in float32 or wider.

    Args:
        weights: the layer's weights.
        gradient: its gradient with the l2 penalty, of the same shape.
        coefficient: the share of a weight's norm that a step of learning rate 1 covers.
    """
    dtype = keras.backend.result_type(weights.dtype, "float32")
    weight_norm, gradient_norm = tf.norm(tf.cast(weights, dtype)), tf.norm(tf.cast(gradient, dtype))
    ratio = coefficient * tf.math.divide_no_nan(weight_norm, gradient_norm)
    both = tf.logical_and(weight_norm > 0, gradient_norm > 0)
    return tf.where(both, ratio, tf.ones_like(ratio))


@keras.saving.register_keras_serializable("tfcq")
class LARS(SGD):
    """Layer-wise adaptive rate scaling: SGD whose gradient is scaled to each variable's norm.

        d = gradient + l2 * weight
        d = d * trust_coefficient * |weight| / |d|          (1 where either norm is zero)
        velocity = momentum * velocity - learning_rate * d
        weight = weight + velocity

    You et al., "Large Batch Training of Convolutional Networks" (2017), Algorithm 1, in the form
    that SimCLR, BYOL and MoCo v3 use: the norm is of the sum, where eq. 6 of You et al. has the sum
    of norms, |gradient| + l2 * |weight|. The learning rate enters the velocity, as in Algorithm 1
    and SimCLR; under a constant rate this equals MoCo v3's and BYOL's order.

    Args:
        learning_rate: a float or a Keras schedule.
        momentum: from 0 to below 1.
        l2: the penalty's factor.
        exclude: patterns of the variables with neither penalty nor trust ratio; biases and the
            scale and offset of batch norm by default. Scales of quantizers (`*step_size`,
            `*clipping`) never have a trust ratio; name them here to spare them the penalty too.
        trust_coefficient: eta of the paper.
        **kwargs: as for `keras.optimizers.SGD`, `nesterov` among them.

    Raises:
        UserError: when `weight_decay` is passed, which would be decoupled from the norms.

    Example:

        >>> tfcq.LARS(4.8, l2=1e-6, exclude=("bias", "gamma", "beta")).exclude
        ('bias', 'gamma', 'beta')
    """

    standard_exclusions = ("bias", "gamma", "beta")

    def __init__(
        self,
        learning_rate: Any = 0.3,
        momentum: float = 0.9,
        l2: float = 0.0,
        exclude: Sequence[str] | None = None,
        trust_coefficient: float = 0.001,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("weight_decay") is not None:
            raise UserError("LARS received weight_decay; allowed: l2, which enters the norm.")
        super().__init__(learning_rate, momentum, l2, exclude, **kwargs)
        self.trust_coefficient = trust_coefficient

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the momentum of each variable.

        Args:
            variables: the variables to train.

        Raises:
            UserError: on a pattern of `exclude` that matches none of them.
        """
        if self.built:
            return
        super().build(variables)
        self.unscaled = self.excluded | matching(variables, QUANTIZER_SCALES)

    def direction(self, gradient: tf.Tensor, variable: Any) -> tf.Tensor:
        """Returns what momentum accumulates, of the variable's shape and the gradient's dtype.

        Args:
            gradient: gradient of the loss, of the variable's shape.
            variable: the variable.
        """
        gradient = super().direction(gradient, variable)
        if self.index(variable) in self.unscaled:
            return gradient
        ratio = trust_ratio(tf.convert_to_tensor(variable), gradient, self.trust_coefficient)
        return tf.cast(ratio, gradient.dtype) * gradient

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}
