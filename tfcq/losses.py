"""Losses as pure functions of embeddings."""

import tensorflow as tf

from tfcq.quantization.ops import arithmetic_dtype


def normalized(x: tf.Tensor) -> tf.Tensor:
    """Returns rows of length 1, in float32 for half precision: its squares would overflow.

    Args:
        x: float tensor [batch, dimensions].
    """
    return tf.math.l2_normalize(tf.cast(x, arithmetic_dtype(x.dtype)), -1)


def cosine_similarity(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns the cosine of the angle between rows, of shape [batch].

    Args:
        a: float tensor [batch, dimensions].
        b: float tensor [batch, dimensions].
    """
    return tf.reduce_sum(normalized(a) * normalized(b), axis=-1)


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
