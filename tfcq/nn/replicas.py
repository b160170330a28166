"""What a replica needs of others: their rows, where its own stand among them, their ranges."""

import tensorflow as tf

from tfcq.settings.generator import GENERATOR


def gathered(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows of every replica, in the order of the replicas; gradients flow back.

    Args:
        rows: float tensor [batch, dimensions], of the same shape on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    # Its result has no static shape.
    return tf.ensure_shape(context.all_gather(rows, axis=0), [None, *rows.shape[1:]])


def first_row(rows: tf.Tensor) -> tf.Tensor:
    """Returns where this replica's rows begin among the gathered ones, an int32 of shape ().

    Args:
        rows: this replica's rows.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0)
    return tf.cast(context.replica_id_in_sync_group, tf.int32) * tf.shape(rows)[0]


def range_over_replicas(minimum: tf.Tensor, maximum: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the least minimum and the greatest maximum of all replicas; gradients flow back.

    Args:
        minimum: float tensor of shape (), this replica's.
        maximum: float tensor of shape (), likewise.
    """
    ends = gathered(tf.stack([[minimum, maximum]]))
    return tf.reduce_min(ends[:, 0]), tf.reduce_max(ends[:, 1])


def shuffled(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns as many rows, drawn without repetition from those of every replica.

    A key's batch norm then sees other images than its query's (MoCo, Sec. 3.3, "Shuffling BN").

    Args:
        rows: tensor [batch, ...], of the same shape on every replica.
        seed: int tensor of shape (2,), equal on every replica.
    """
    every = gathered(rows)
    order = _order(every, seed)
    start, count = first_row(rows), tf.shape(rows)[0]
    return tf.ensure_shape(tf.gather(every, order[start : start + count]), rows.shape)


def unshuffled(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns the rows that belong to this replica's images, after `shuffled`.

    Args:
        rows: tensor [batch, ...], computed from what `shuffled` returned.
        seed: the seed given to it.
    """
    every = gathered(rows)
    place = tf.math.invert_permutation(_order(every, seed))
    start, count = first_row(rows), tf.shape(rows)[0]
    return tf.ensure_shape(tf.gather(every, place[start : start + count]), rows.shape)


def _order(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    # Not `stateless_shuffle`, which XLA does not compile.
    count = tf.shape(rows)[:1]
    draws = tf.random.stateless_uniform(count, seed, None, None, tf.int32, alg=GENERATOR)
    return tf.argsort(draws, stable=True)
