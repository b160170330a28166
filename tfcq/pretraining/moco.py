"""MoCo v2 (Chen et al., 2020) and v3 (Chen, Xie and He, 2021): keys from a momentum network."""

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.nn.replicas import first_row, gathered
from tfcq.pretraining import losses
from tfcq.pretraining.framework import Framework
from tfcq.settings.generator import GENERATOR


class MoCoV2(Framework):
    """Queries meet their momentum key and repel a queue of the keys of earlier steps.

    Args:
        *args: as for `Framework`.
        temperature: T of the loss, positive.
        queue_size: how many keys the queue holds.
        **kwargs: as for `Framework`.
    """

    def __init__(self, *args, temperature: float = 0.2, queue_size: int = 65536, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature
        width = self.projector.output_shape[-1]
        # Random directions, until keys have replaced them (MoCo, Algorithm 1).
        random = tf.random.stateless_normal(
            (queue_size, width), [0, 0], dtype=self.variable_dtype, alg=GENERATOR
        )
        self.queue = self._state("queue", random)
        self.oldest = self._state("oldest", tf.zeros((), tf.int64))

    def _state(self, name: str, start: tf.Tensor) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=start.shape,
            dtype=start.dtype,
            initializer=lambda shape, dtype: start,
            trainable=False,
            aggregation="only_first_replica",
        )

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns InfoNCE (MoCo, Eq. 1) against key and queue, of shape ().

        Args:
            predictions: float tensor [batch, width], the queries.
            targets: float tensor [batch, width], their keys; no gradient flows into them.
            mutual: makes no difference here.
        """
        return losses.queue_info_nce(predictions, targets, self.queue.value, self.temperature)

    def check_targets(self, count: int) -> None:
        """Refuses more keys than the queue holds.

        Args:
            count: how many keys a step makes.

        Raises:
            UserError: when they do not fit into the queue.
        """
        size = self.queue.shape[0]
        if count > size:
            raise UserError(
                f"A step makes {count} keys, the queue holds {size}; allowed: a queue_size of "
                f"{count} and above."
            )

    def end_step(self, targets: list[tf.Tensor]) -> None:
        """Replaces the oldest keys of the queue by this step's.

        Args:
            targets: float tensors [batch, width], the target embeddings of the step.

        Raises:
            UserError: when the step's keys do not fit into the queue.
        """
        keys = gathered(losses.normalized(tf.concat(targets, axis=0)))
        size = self.queue.shape[0]
        self.check_targets(keys.shape[0] or 0)
        count = tf.shape(keys, out_type=tf.int64)[0]
        tf.debugging.assert_less_equal(
            count, tf.cast(size, tf.int64), "A step makes more keys than the queue holds."
        )
        places = (self.oldest.value + tf.range(count)) % size
        self.queue.assign(
            tf.tensor_scatter_nd_update(
                self.queue.value, places[:, tf.newaxis], tf.cast(keys, self.queue.dtype)
            )
        )
        self.oldest.assign((self.oldest.value + count) % size)


class MoCoV3(Framework):
    """Predicted queries meet the momentum keys of the global batch; no queue.

    Args:
        *args: as for `Framework`.
        temperature: T of the loss, positive.
        **kwargs: as for `Framework`.
    """

    def __init__(self, *args, temperature: float = 0.2, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns 2 T InfoNCE over the keys of the batch (MoCo v3, Algorithm 1), of shape ().

        Args:
            predictions: float tensor [batch, width], the queries.
            targets: float tensor [batch, width], their keys; no gradient flows into them.
            mutual: makes no difference here.
        """
        rows = first_row(predictions) + tf.range(tf.shape(predictions)[0])
        keys = gathered(tf.stop_gradient(targets))
        loss = losses.contrastive_cross_entropy(predictions, keys, rows, self.temperature)
        return 2 * self.temperature * loss


def mocov2(
    features: int,
    projection_width: int,
    projection_hidden: int,
    target_momentum: float,
    **kwargs,
) -> MoCoV2:
    """Returns MoCo v2 with a two-layer projector without batch norm.

    Args:
        features: width of the backbone's features.
        projection_width: width of the embedding.
        projection_hidden: width of the hidden layer; that of the features in the paper.
        target_momentum: share of itself that the target network keeps in an update.
        **kwargs: as for `MoCoV2`.
    """
    projector = multi_layer_perceptron(
        features,
        (projection_hidden, projection_width),
        last_norm=False,
        hidden_norm=False,
        name="projector",
    )
    return MoCoV2(projector, target_momentum=target_momentum, **kwargs)


def mocov3(
    features: int,
    projection_width: int,
    projection_hidden: int,
    predictor_width: int,
    target_momentum: float,
    **kwargs,
) -> MoCoV3:
    """Returns MoCo v3 with its three-layer projector and two-layer predictor.

    Args:
        features: width of the backbone's features.
        projection_width: width of the embedding.
        projection_hidden: width of the projector's hidden layers.
        predictor_width: width of the predictor's hidden layer.
        target_momentum: share of itself that the target network keeps in an update.
        **kwargs: as for `MoCoV3`.
    """
    projector = multi_layer_perceptron(
        features,
        (projection_hidden, projection_hidden, projection_width),
        last_norm=True,
        name="projector",
    )
    predictor = multi_layer_perceptron(
        projection_width, (predictor_width, projection_width), last_norm=True, name="predictor"
    )
    return MoCoV3(projector, predictor, target_momentum=target_momentum, **kwargs)
