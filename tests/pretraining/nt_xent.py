"""NT-Xent as SimCLR writes it, to compare frameworks with."""

import tensorflow as tf

from tfcq.pretraining.losses import contrastive_cross_entropy


def nt_xent(view1: tf.Tensor, view2: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns NT-Xent over all 2N views, each repelled by the 2N - 2 of other images.

    SimCLR, Eq. 1 and Algorithm 1.

    Args:
        view1: float tensor [batch, dimensions].
        view2: float tensor [batch, dimensions].
        temperature: T, positive.
    """
    batch = tf.shape(view1)[0]
    views = tf.concat([view1, view2], axis=0)
    rows = tf.range(2 * batch)
    positives = (rows + batch) % (2 * batch)
    return contrastive_cross_entropy(views, views, positives, temperature, excluded=rows)
