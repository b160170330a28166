"""SimCLR (Chen et al., 2020): two views of an image attract, views of other images repel."""

import tensorflow as tf

from tfcq.nn.replicas import first_row, gathered
from tfcq.pretraining import losses
from tfcq.pretraining.framework import Framework, projector


class SimCLR(Framework):
    """Projector and NT-Xent over the views of the global batch.

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
        views, each among 2N - 1 candidates, and gradients flow into both. In a pair of one
        direction predictions contrast with the N detached targets alone.

        SSQL-NCE has no formula in its paper. Recipe `ssql` is our reading, Eq. 7 with these pairs;
        the SSQL authors' public loss is `quantized_both_aux`, the mean of NT-Xent between the
        float and between the quantized passes of the two views.

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


def simclr(
    features: int,
    projection_width: int,
    projection_hidden: int,
    projection_layers: int = 2,
    projection_norm: str = "none",
    **kwargs,
) -> SimCLR:
    """Returns SimCLR with a projector as in its paper (Sec. 4.2), which has two layers.

    Args:
        features: width of the backbone's features.
        projection_width: width of the embedding.
        projection_hidden: width of the hidden layers; that of the features in the paper.
        projection_layers: dense layers; 3 in the public code of Jiang et al., 2020.
        projection_norm: what follows the last layer, see `projector`; `"affine"` in that code.
        **kwargs: as for `SimCLR`.
    """
    head = projector(
        features, projection_layers, projection_hidden, projection_width, projection_norm
    )
    return SimCLR(head, **kwargs)
