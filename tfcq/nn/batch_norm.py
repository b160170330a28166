"""Batch norm that reads and writes its tensor once where Keras's does so about ten times."""

from typing import Any

import keras
import tensorflow as tf

_FUSED_DTYPES = (tf.float32, tf.float16, tf.bfloat16)


@keras.saving.register_keras_serializable("tfcq")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` by TensorFlow's fused operation while it trains.

    Its name is Keras's, so that all that knows that layer by name knows this one, and so are its
    weights. Keras's own computation stays in inference, where results are the original's to the
    last bit, and wherever the fused operation lacks something: float64, an axis other than the
    last, masks, renormalization, statistics over replicas.

    Args:
        **kwargs: as for `keras.layers.BatchNormalization`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Returns the normalized inputs; moves the running statistics if it trains.

        Args:
            inputs: float tensor of rank 2 and above.
            training: whether the moments are those of this batch.
            mask: as for `keras.layers.BatchNormalization`.
        """
        if not (training and self.trainable and mask is None and self._fuses(inputs)):
            return super().call(inputs, training=training, mask=mask)
        shape, channels = tf.shape(inputs), inputs.shape[-1]
        ones = tf.ones((channels,))
        # By its raw form: the public wrapper would silently raise epsilon to 1.001e-5.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs if inputs.shape.rank == 4 else tf.reshape(inputs, (-1, 1, 1, channels)),
            scale=tf.convert_to_tensor(self.gamma) if self.scale else ones,
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(ones),
            mean=tf.zeros((0,)),
            variance=tf.zeros((0,)),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        # It divides by count - 1, Keras by count.
        self._move(self.moving_variance, variance * (count - 1) / count)
        self._move(self.moving_mean, mean)
        return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, shape)

    def _fuses(self, inputs: tf.Tensor) -> bool:
        last = self.axis in (-1, inputs.shape.rank - 1)
        plain = last and not self.renorm and not self.synchronized
        return plain and inputs.dtype in _FUSED_DTYPES and self.variable_dtype == "float32"

    def _move(self, moving: keras.Variable, value: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + value * (1 - self.momentum))


FUSED = {keras.layers.BatchNormalization: BatchNormalization}
UNFUSED = {fused: plain for plain, fused in FUSED.items()}
