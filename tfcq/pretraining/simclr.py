"""SimCLR (Chen et al., 2020): two views of an image attract, views of other images repel."""

import tensorflow as tf

from tfcq import losses
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.pretraining.framework import Framework
from tfcq.pretraining.replicas import first_row, gathered


class SimCLR(Framework):
    """Two-layer projector and NT-Xent over the views of the global batch.

    Args:
        *args: as for `Framework`.
        temperature: T of the loss, positive.
        **kwargs: as for `Framework`.
    """

    def __init__(self, *args, temperature: float = 0.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns one direction's share of the contrastive loss, of shape ().

        A mutual pair is NT-Xent: the mean of its two directions is SimCLR's Eq. 1 over the 2N
        views, and gradients flow into both. A pair of one direction is SSQL-NCE's: predictions
        contrast with the detached targets alone.

        Args:
            predictions: float tensor [batch, width], the anchors.
            targets: float tensor [batch, width], row by row their positives.
            mutual: whether the recipe holds the pair in the other direction too.
        """
        rows = first_row(predictions) + tf.range(tf.shape(predictions)[0])
        if not mutual:
            candidates = gathered(tf.stop_gradient(targets))
            return losses.contrastive_cross_entropy(predictions, candidates, rows, self.temperature)
        others = gathered(targets)
        candidates = tf.concat([others, gathered(predictions)], axis=0)
        themselves = tf.shape(others)[0] + rows
        return losses.contrastive_cross_entropy(
            predictions, candidates, rows, self.temperature, excluded=themselves
        )


def simclr(features: int, projection_width: int, projection_hidden: int, **kwargs) -> SimCLR:
    """Returns SimCLR with the projector of its paper (Sec. 4.2).

    Args:
        features: width of the backbone's features.
        projection_width: width of the embedding.
        projection_hidden: width of the hidden layer; that of the features in the paper.
        **kwargs: as for `SimCLR`.
    """
    projector = multi_layer_perceptron(
        features, (projection_hidden, projection_width), last_norm=False, name="projector"
    )
    return SimCLR(projector, **kwargs)
