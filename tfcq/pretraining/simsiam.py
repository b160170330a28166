"""SimSiam (Chen and He, 2021): one view's prediction meets the other's detached projection."""

import keras
import tensorflow as tf

from tfcq import losses
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.nn.policies import WEIGHTS_8_BIT
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision, RecordRanges


@keras.saving.register_keras_serializable("tfcq")
class SimSiam(keras.layers.Layer):
    """Projector, predictor and the loss that compares a prediction with a projection.

    In quantized passes the projector has 8-bit weights and float activations; the predictor is
    always float (the SSQL authors' setting).

    Args:
        features: width of the backbone's features.
        projection_width: width of the projector's layers and of the embedding; 2048 in the paper.
        predictor_width: width of the predictor's hidden layer; a quarter of it in the paper.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(
        self, features: int, projection_width: int = 2048, predictor_width: int = 512, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.projection_width = projection_width
        self.predictor_width = predictor_width
        projector = multi_layer_perceptron(
            features, (projection_width,) * 3, last_norm=True, name="projector"
        )
        self.projector = quantizable(projector, WEIGHTS_8_BIT)
        self.predictor = multi_layer_perceptron(
            projection_width, (predictor_width, projection_width), last_norm=False, name="predictor"
        )
        self.built = True

    def project(
        self, features: tf.Tensor, precision: Precision | RecordRanges | None, training: bool = True
    ) -> tf.Tensor:
        """Returns the embedding z, float [batch, projection_width].

        Args:
            features: float tensor [batch, features].
            precision: the pass.
            training: whether batch norm uses the batch's statistics.
        """
        return self.projector(features, precision=precision, training=training)

    def predict(self, embeddings: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Returns the prediction p, float [batch, projection_width].

        Args:
            embeddings: float tensor [batch, projection_width].
            training: whether batch norm uses the batch's statistics.
        """
        return self.predictor(embeddings, training=training)

    def compare(self, predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the loss of one pair, of shape () (SimSiam, Eq. 1).

        Args:
            predictions: float tensor [batch, projection_width].
            targets: float tensor [batch, projection_width], the embeddings to predict.
        """
        return losses.negative_cosine(predictions, targets)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "features": self.features,
            "projection_width": self.projection_width,
            "predictor_width": self.predictor_width,
        }
