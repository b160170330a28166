"""Losses as pure functions of embeddings."""

import tensorflow as tf

from tfcq.quantization.ops import arithmetic_dtype

# The length below which a row's gradient falls towards zero, instead of rising without bound.
_SHORT = 1e-3


def normalized(x: tf.Tensor) -> tf.Tensor:
    """Returns rows of length 1, in float32 for half precision: its squares would overflow.

        y = x / |x|      dL/dx = (g - y (y . g)) / |x| * min(1, |x| / 1e-3)      g = dL/dy

    so that dL/dx is at most 1000 times as long as g. A row of zeros, which has no direction, stays
    zero and gets no gradient.

    Args:
        x: float tensor [batch, dimensions].
    """
    x = tf.cast(x, arithmetic_dtype(x.dtype))
    share = tf.stop_gradient(tf.minimum(tf.norm(x, axis=-1, keepdims=True) / _SHORT, 1))
    return tf.math.l2_normalize(share * x + tf.stop_gradient((1 - share) * x), -1)


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


def normalized_mse(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns |p/|p| - z/|z||^2 = 2 - 2 cos(p, z), averaged over the batch, the target detached.

    BYOL, Eq. 2.

    Args:
        predictions: float tensor [batch, dimensions].
        targets: float tensor [batch, dimensions]; no gradient flows into it.

    Returns:
        A tensor of shape (), from 0 (same direction) to 4.
    """
    return 2 + 2 * negative_cosine(predictions, targets)


def contrastive_cross_entropy(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    positives: tf.Tensor,
    temperature: float,
    excluded: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns -log(exp(a . c+ / T) / sum over candidates of exp(a . c / T)), averaged over anchors.

    Rows are normalized first. Contrastive Quant, Eq. 1; SimCLR, Eq. 1 (NT-Xent), where the anchor
    itself is excluded; MoCo, Eq. 1 (InfoNCE).

    Args:
        anchors: float tensor [batch, dimensions].
        candidates: float tensor [count, dimensions].
        positives: int tensor [batch], each anchor's positive among the candidates.
        temperature: T, positive.
        excluded: int tensor [batch], a candidate that is left out of each anchor's sum; None for
            none.

    Returns:
        A tensor of shape (), 0 and above.
    """
    candidates = normalized(candidates)
    logits = tf.matmul(normalized(anchors), candidates, transpose_b=True) / temperature
    if excluded is not None:
        left_out = tf.one_hot(excluded, tf.shape(candidates)[0], on_value=True, off_value=False)
        logits = tf.where(left_out, logits.dtype.min, logits)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=positives, logits=logits)
    )


def queue_info_nce(
    queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Returns InfoNCE of queries against their own key and a queue of other images' keys.

    MoCo, Eq. 1 and Algorithm 1. No gradient flows into keys and queue.

    Args:
        queries: float tensor [batch, dimensions].
        keys: float tensor [batch, dimensions], row by row the queries' positives.
        queue: float tensor [count, dimensions], the negatives of every query.
        temperature: T, positive.

    Returns:
        A tensor of shape (), 0 and above.
    """
    queries = normalized(queries)
    keys, queue = tf.stop_gradient(normalized(keys)), tf.stop_gradient(normalized(queue))
    positive = tf.reduce_sum(queries * keys, axis=1, keepdims=True)
    negative = tf.matmul(queries, queue, transpose_b=True)
    logits = tf.concat([positive, negative], axis=1) / temperature
    return tf.reduce_mean(-tf.nn.log_softmax(logits)[:, 0])
