"""The figures of a training step, averaged over an epoch."""

import math

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.nn.replicas import gathered
from tfcq.pretraining import losses
from tfcq.settings.recipes import FLOAT_PASS, Pass, Recipe


def feature_std_ratio(embeddings: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation of the l2-normalized embeddings over 1/sqrt(dimensions).

    1 for embeddings spread evenly over the sphere, 0 for collapsed ones (SimSiam, Sec. 4.1).

    Args:
        embeddings: float tensor [batch, dimensions].
    """
    spread = tf.reduce_mean(tf.math.reduce_std(losses.normalized(embeddings), axis=0))
    return spread * math.sqrt(embeddings.shape[-1])


def error_correlation(quantized: tf.Tensor, embeddings: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns how far quantization and contrastive errors point the same way, of shape ().

        Q = z_q - z      C = z - t      E[Q . C] / sqrt(E[|Q|^2] E[|C|^2])

    on normalized embeddings, E over the batch: the cross term of SSQL's Eq. 15 in units of the
    other two (Appendix C.1). 0 where one of the errors vanishes.

    Args:
        quantized: float tensor [batch, dimensions], z_q, a view's embeddings in a quantized pass.
        embeddings: float tensor [batch, dimensions], z, the same view's in the float pass.
        targets: float tensor [batch, dimensions], t, the other view's in the float pass.
    """
    quantized, embeddings, targets = map(losses.normalized, (quantized, embeddings, targets))
    quantization, contrastive = quantized - embeddings, embeddings - targets
    sizes = tf.reduce_mean(tf.reduce_sum(quantization**2, 1)) * tf.reduce_mean(
        tf.reduce_sum(contrastive**2, 1)
    )
    cross = tf.reduce_mean(tf.reduce_sum(quantization * contrastive, 1))
    return tf.math.divide_no_nan(cross, tf.sqrt(sizes))


class StepFigures:
    """Loss, spread of the embeddings, cosine of float and quantized ones, and drawn bits.

    The cosine is measured where the trained network sees a view at both precisions.

    Args:
        passes: the passes of the trained network, in order.
        recipe: the recipe.
        correlation: whether `error_correlation` is measured too.

    Raises:
        UserError: when it is to be measured, and the trained network does not see one view at both
            precisions and another in float.
    """

    def __init__(self, passes: tuple[Pass, ...], recipe: Recipe, correlation: bool = False) -> None:
        self.first = passes[0]
        self.at_both_precisions = [
            (Pass(one.view, FLOAT_PASS), one)
            for one in passes
            if not one.is_float and Pass(one.view, FLOAT_PASS) in passes
        ]
        self.loss = keras.metrics.Mean("loss")
        self.std = keras.metrics.Mean("feature_std_ratio")
        self.metrics = [self.loss, self.std]
        if self.at_both_precisions:
            self.cosine = keras.metrics.Mean("cosine_float_quantized")
            self.metrics.append(self.cosine)
        self.correlated = []
        if correlation:
            self.correlated = [
                (one, own, other)
                for own, one in self.at_both_precisions
                for other in passes
                if other.is_float and other.view != own.view
            ]
            if not self.correlated:
                raise UserError(
                    f"error_correlation has no effect: recipe {recipe.name!r} has no quantized "
                    "pass beside float ones of both views in the trained network."
                )
            self.correlation = keras.metrics.Mean("error_correlation")
            self.metrics.append(self.correlation)
        self.bits = []
        if recipe.draws:
            self.bits = [keras.metrics.Mean("weight_bits"), keras.metrics.Mean("activation_bits")]
            self.metrics += self.bits

    def update(self, loss: tf.Tensor, embeddings: dict[Pass, tf.Tensor], bits: tf.Tensor) -> None:
        """Takes in a step; what is no mean over images is measured over those of all replicas.

        Args:
            loss: float tensor of shape ().
            embeddings: float tensor [batch, width] of each pass of the trained network.
            bits: int32 tensor [draws, 2], weight and activation bits of each draw.
        """
        self.loss.update_state(loss)
        self.std.update_state(feature_std_ratio(gathered(embeddings[self.first])))
        if self.at_both_precisions:
            cosines = [
                losses.cosine_similarity(embeddings[one], embeddings[other])
                for one, other in self.at_both_precisions
            ]
            self.cosine.update_state(tf.concat(cosines, axis=0))
        for passes in self.correlated:
            every = [gathered(embeddings[one]) for one in passes]
            self.correlation.update_state(error_correlation(*every))
        for metric, drawn in zip(self.bits, tf.unstack(bits, axis=1), strict=False):
            metric.update_state(tf.cast(drawn, tf.float32))
