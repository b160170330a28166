"""What every framework is: a projector, perhaps a predictor, and how two embeddings compare."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.frameworks import check_settings
from tfcq.settings.policies import WEIGHTS_8_BIT, Policy


class Framework(keras.layers.Layer):
    """Heads of a framework; a subclass adds `compare`.

    The predictor is always float (the SSQL authors' setting).

    Args:
        projector: float model from features [batch, features] to embeddings [batch, width].
        predictor: float model from embeddings to predictions of the same width; None where
            embeddings are compared as they are.
        projector_policy: how the projector is quantized in quantized passes; 8-bit weights and
            float activations by default (the SSQL authors' setting).
        target_momentum: share of itself that the target network keeps in an update, 0 to below 1;
            None where the network is its own target.
        target_momentum_schedule: `"constant"`, or `"cosine"` up to 1 at the end of training (BYOL,
            Sec. 3.3).
        target_update: `"after_step"`, after the optimizer's step, or `"before_targets"`, before
            the step's targets are computed (the SSQL authors' order).
        **kwargs: as for `keras.layers.Layer`.

    Raises:
        UserError: on a setting that cannot be used, or a predictor of another width.

    Example:

        >>> class Closest(tfcq.Framework):
        ...     def compare(self, prediction, target, mutual):
        ...         return keras.ops.mean(keras.ops.abs(prediction - target))
        >>> embeddings = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> backbone = tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1))
        >>> tfcq.Pretrainer(backbone, Closest(embeddings)).framework.projector.output_shape
        (None, 4)
    """

    def __init__(
        self,
        projector: keras.Model,
        predictor: keras.Model | None = None,
        projector_policy: Policy = WEIGHTS_8_BIT,
        target_momentum: float | None = None,
        target_momentum_schedule: str = "constant",
        target_update: str = "after_step",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        settings: dict[str, Any] = {
            "target_momentum_schedule": target_momentum_schedule,
            "target_update": target_update,
        }
        if target_momentum is not None:
            settings["target_momentum"] = target_momentum
        check_settings(settings)
        self.projector = quantizable(projector, projector_policy)
        self.predictor = predictor
        if predictor is not None and predictor.output_shape != projector.output_shape:
            raise UserError(
                f"Predictor returns shape {predictor.output_shape}, projector "
                f"{projector.output_shape}; allowed: the same."
            )
        self.target_momentum = target_momentum
        self.target_momentum_schedule = target_momentum_schedule
        self.target_update = target_update
        self.built = True

    def project(
        self, features: tf.Tensor, precision: Precision | RecordRanges | None, training: bool = True
    ) -> tf.Tensor:
        """Returns the embedding z, float [batch, width].

        Args:
            features: float tensor [batch, features].
            precision: the pass.
            training: whether batch norm uses the batch's statistics.
        """
        return self.projector(features, precision=precision, training=training)

    def predict(self, embeddings: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Returns the prediction p, float [batch, width]; the embedding itself without predictor.

        Args:
            embeddings: float tensor [batch, width].
            training: whether batch norm uses the batch's statistics.
        """
        if self.predictor is None:
            return embeddings
        return self.predictor(embeddings, training=training)

    def compare(
        self, predictions: tf.Tensor, targets: tf.Tensor, mutual: bool = False
    ) -> tf.Tensor:
        """Returns the loss of one pair, of shape ().

        Args:
            predictions: float tensor [batch, width].
            targets: float tensor [batch, width], the embeddings to predict.
            mutual: whether the recipe holds the pair in the other direction too.
        """
        raise NotImplementedError

    def check_targets(self, count: int) -> None:
        """Refuses a step of more targets than the framework can keep; nothing unless it says so.

        Args:
            count: how many target embeddings a step has.
        """

    def end_step(self, targets: list[tf.Tensor]) -> None:
        """Keeps what later steps need of this one's targets; nothing unless a framework says so.

        Args:
            targets: float tensors [batch, width], the target embeddings of the step.
        """


def projector(
    features: int,
    projection_layers: int,
    projection_hidden: int,
    projection_width: int,
    projection_norm: str,
) -> keras.Model:
    """Returns a projector whose depth and end are settings.

    Args:
        features: width of the backbone's features.
        projection_layers: dense layers, 1 and above.
        projection_hidden: width of all layers but the last.
        projection_width: width of the last.
        projection_norm: what follows the last layer: `"none"`, a batch norm `"fixed"` at mean 0
            and deviation 1, or an `"affine"` one, with scale and offset.

    Raises:
        UserError: on an unknown end, or a number that is not positive.
    """
    check_settings({"projection_layers": projection_layers, "projection_norm": projection_norm})
    return multi_layer_perceptron(
        features,
        (projection_hidden,) * (projection_layers - 1) + (projection_width,),
        last_norm=projection_norm != "none",
        last_affine=projection_norm == "affine",
        name="projector",
    )
