"""BYOL (Grill et al., 2020): predict what a slowly moving copy of the network makes of the view."""

import tensorflow as tf

from tfcq.errors import unknown_choice
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.pretraining import losses
from tfcq.pretraining.framework import Framework, projector

REGRESSIONS = {
    "normalized_mse": losses.normalized_mse,
    "negative_cosine": losses.negative_cosine,
}


class BYOL(Framework):
    """Projector and two-layer predictor; targets come from the momentum network.

    Args:
        *args: as for `Framework`.
        regression_loss: `"normalized_mse"` (BYOL, Eq. 2), or `"negative_cosine"`, which has half
            its gradient (the SSQL authors' code).
        **kwargs: as for `Framework`.

    Raises:
        UserError: on an unknown loss.
    """

    def __init__(self, *args, regression_loss: str = "normalized_mse", **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if regression_loss not in REGRESSIONS:
            raise unknown_choice("regression loss", regression_loss, REGRESSIONS)
        self.regression_loss = regression_loss

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns the distance between prediction and target, of shape ().

        Args:
            predictions: float tensor [batch, width].
            targets: float tensor [batch, width]; no gradient flows into it.
            mutual: makes no difference here.
        """
        return REGRESSIONS[self.regression_loss](predictions, targets)


def byol(
    features: int,
    projection_width: int,
    projection_hidden: int,
    predictor_width: int,
    target_momentum: float,
    projection_layers: int = 2,
    projection_norm: str = "none",
    **kwargs,
) -> BYOL:
    """Returns BYOL with heads as in its paper (Sec. 3.3), which has two layers in both.

    Args:
        features: width of the backbone's features.
        projection_width: width of the embedding.
        projection_hidden: width of the projector's hidden layers.
        predictor_width: width of the predictor's hidden layer.
        target_momentum: share of itself that the target network keeps in an update.
        projection_layers: dense layers of the projector; the SSQL authors' has 3.
        projection_norm: what follows its last layer, see `projector`; `"fixed"` in the SSQL
            authors' quantized one.
        **kwargs: as for `BYOL`.
    """
    predictor = multi_layer_perceptron(
        projection_width, (predictor_width, projection_width), last_norm=False, name="predictor"
    )
    head = projector(
        features, projection_layers, projection_hidden, projection_width, projection_norm
    )
    return BYOL(head, predictor, target_momentum=target_momentum, **kwargs)
