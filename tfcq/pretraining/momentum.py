"""The momentum network: a copy of backbone and projector that follows them slowly."""

import math

import keras
import tensorflow as tf

from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.policies import LEARNED_SCALES


class MomentumNetwork(keras.layers.Layer):
    """Backbone and projector that make the targets of BYOL and MoCo.

    Weights follow the online network's, xi <- m xi + (1 - m) theta (BYOL, Eq. 1; MoCo, Eq. 2).
    Batch norm statistics and activation ranges are those of its own passes. Learned scales are the
    online network's: an average with a scale not set yet would be taken for one that is.

    Args:
        backbone: the online backbone.
        projector: the online projector.
        momentum: m at the start of training, 0 to below 1.
        schedule: `"constant"`, or `"cosine"`: m_k = 1 - (1 - m) (cos(pi k / K) + 1) / 2 at step k
            of K (BYOL, Sec. 3.3).
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(
        self,
        backbone: QuantizableModel,
        projector: QuantizableModel,
        momentum: float,
        schedule: str = "constant",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.schedule = schedule
        self.backbone, self.projector = copy_of(backbone), copy_of(projector)
        # Not `layer.trainable`: that would have batch norm use its running statistics.
        for variable, _ in self.pairs(backbone, projector):
            variable.trainable = False
        self.built = True

    def pairs(
        self, backbone: QuantizableModel, projector: QuantizableModel
    ) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns each weight that follows, with the online network's that it follows.

        Args:
            backbone: the online backbone.
            projector: the online projector.
        """
        # Not kept: Keras would count the online weights among this network's.
        online = [*backbone.variables, *projector.variables]
        own = [*self.backbone.variables, *self.projector.variables]
        return [pair for pair in zip(own, online, strict=True) if pair[1].trainable]

    def project(
        self, images: tf.Tensor, precision: Precision | RecordRanges | None, training: bool = True
    ) -> tf.Tensor:
        """Returns embeddings without gradient, float [batch, width].

        Args:
            images: float tensor [batch, height, width, channels].
            precision: the pass.
            training: whether batch norm uses the batch's statistics.
        """
        features = self.backbone(images, precision=precision, training=training)
        return tf.stop_gradient(self.projector(features, precision=precision, training=training))

    def momentum_at(self, step: tf.Tensor, total_steps: tf.Tensor) -> tf.Tensor:
        """Returns m of a step, a float64 tensor of shape ().

        Args:
            step: int64 tensor of shape (), the step, from 0.
            total_steps: int64 tensor of shape (), steps of the whole training, positive.
        """
        if self.schedule == "constant":
            return tf.constant(self.momentum, tf.float64)
        progress = tf.cast(step, tf.float64) / tf.cast(total_steps, tf.float64)
        progress = tf.minimum(progress, 1)
        return 1 - (1 - self.momentum) * (tf.cos(math.pi * progress) + 1) / 2

    def follow(
        self,
        backbone: QuantizableModel,
        projector: QuantizableModel,
        step: tf.Tensor,
        total_steps: tf.Tensor,
    ) -> None:
        """Moves every weight towards the online network's.

        Args:
            backbone: the online backbone.
            projector: the online projector.
            step: int64 tensor of shape (), the step, from 0.
            total_steps: int64 tensor of shape (), steps of the whole training, positive.
        """
        pairs, momentum = self.pairs(backbone, projector), self.momentum_at(step, total_steps)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            context.merge_call(self._follow_on_every_replica, args=(pairs, momentum))
            return
        for own, online in pairs:
            own.assign(_moved(own.value, online.value, self._share(own, momentum)))

    def _follow_on_every_replica(
        self,
        strategy: tf.distribute.Strategy,
        pairs: list[tuple[keras.Variable, keras.Variable]],
        momentum: tf.Tensor,
    ) -> None:
        def move(own, online, momentum):
            own.assign(_moved(own, online, momentum))

        for own, online in pairs:
            share = self._share(own, momentum)
            strategy.extended.update(own.value, move, args=(online.value, share), group=False)

    def _share(self, own: keras.Variable, momentum: tf.Tensor) -> tf.Tensor | float:
        return 0.0 if own.name in LEARNED_SCALES else momentum


def _moved(own: tf.Tensor, online: tf.Tensor, momentum: tf.Tensor | float) -> tf.Tensor:
    share = tf.cast(momentum, own.dtype)
    return share * own + (1 - share) * tf.cast(online, own.dtype)
