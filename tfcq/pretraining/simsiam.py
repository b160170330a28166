"""SimSiam (Chen and He, 2021): one view's prediction meets the other's detached projection."""

import tensorflow as tf

from tfcq.nn.heads import multi_layer_perceptron
from tfcq.pretraining import losses
from tfcq.pretraining.framework import Framework


class SimSiam(Framework):
    """Three-layer projector, bottleneck predictor, negative cosine with detached targets."""

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns the negative cosine similarity (SimSiam, Eq. 1), of shape ().

        Args:
            predictions: float tensor [batch, width].
            targets: float tensor [batch, width]; no gradient flows into it.
            mutual: makes no difference here.
        """
        return losses.negative_cosine(predictions, targets)


def simsiam(features: int, projection_width: int, predictor_width: int, **kwargs) -> SimSiam:
    """Returns SimSiam with the heads of its paper (Sec. 3).

    Args:
        features: width of the backbone's features.
        projection_width: width of the projector's three layers.
        predictor_width: width of the predictor's hidden layer; a quarter of it in the paper.
        **kwargs: as for `Framework`.
    """
    projector = multi_layer_perceptron(
        features, (projection_width,) * 3, last_norm=True, name="projector"
    )
    predictor = multi_layer_perceptron(
        projection_width, (predictor_width, projection_width), last_norm=False, name="predictor"
    )
    return SimSiam(projector, predictor, **kwargs)
