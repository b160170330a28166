"""Losses as pure functions of embeddings."""

import tensorflow as tf


def cosine_similarity(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns the cosine of the angle between rows, of shape [batch].

    Args:
        a: float tensor [batch, dimensions].
        b: float tensor [batch, dimensions].
    """
    return tf.reduce_sum(tf.math.l2_normalize(a, -1) * tf.math.l2_normalize(b, -1), axis=-1)


def negative_cosine(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns D(p, z) = -p/|p| . z/|z|, averaged over the batch, the target detached.

    SimSiam, Eq. 1; SSQL, Sec. 3.1.

    Args:
        predictions: float tensor [batch, dimensions].
        targets: float tensor [batch, dimensions]; no gradient flows into it.

    Returns:
        A tensor of shape (), from -1 (same direction) to 1.
    """
    return -tf.reduce_mean(cosine_similarity(predictions, tf.stop_gradient(targets)))
