"""On which devices a run trains."""

import math

import keras
import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.settings.training_groups import MULTI_WORKER, STRATEGIES, TPU


def strategy_named(name: str, tpu: str | None = None) -> tf.distribute.Strategy:
    """Returns a distribution strategy.

    Args:
        name: `"single"` (one device), `"mirrored"` (every GPU of this machine, or its CPU),
            `"multi_worker"` (those of every process that `TF_CONFIG` names) or `"tpu"`.
        tpu: name or address of the TPU; None for the one that the environment names.

    Raises:
        UserError: on an unknown name, when there is no TPU, or when the other processes cannot be
            reached.
    """
    if name not in STRATEGIES:
        raise unknown_choice("strategy", name, STRATEGIES)
    if name == "mirrored":
        mirrored = tf.distribute.MirroredStrategy()
        if mirrored.num_replicas_in_sync == 1:
            print("--strategy=mirrored has one device here, and trains on it alone.", flush=True)
        return mirrored
    if name == MULTI_WORKER:
        return _multi_worker_strategy()
    if name == TPU:
        return _tpu_strategy(tpu)
    return tf.distribute.get_strategy()


def finite_everywhere(gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Returns gradients of which the first is NaN if any replica's are not finite.

    Keras's LossScaleOptimizer asks one replica whether a step is skipped, before the gradients of
    all are added up: without this, infinities of another one would reach the weights.

    Args:
        gradients: those of one replica; None where a variable has none.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return gradients
    dense = [tf.convert_to_tensor(one) for one in gradients if one is not None]
    bad = tf.reduce_any([tf.reduce_any(~tf.math.is_finite(one)) for one in dense])
    several = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(bad, tf.float32))
    first = next(place for place, one in enumerate(gradients) if one is not None)
    spread = tf.where(several > 0, math.nan, tf.zeros_like(dense[0], tf.float32))
    poisoned = dense[0] + tf.cast(spread, dense[0].dtype)
    return [*gradients[:first], poisoned, *gradients[first + 1 :]]


def _multi_worker_strategy() -> tf.distribute.Strategy:
    print("Waiting for the other workers of TF_CONFIG ...", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The workers of TF_CONFIG did not come together ({reason}); allowed: addresses that "
            "all of them reach, with ports that are free."
        ) from None


def _tpu_strategy(name: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(name)
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"No TPU was found ({reason}); allowed here: {', '.join(STRATEGIES[:-1])}."
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def check_batch_size(batch_size: int, replicas: int) -> None:
    """Refuses a batch that cannot be split evenly.

    Args:
        batch_size: images per step, over all replicas.
        replicas: number of replicas.

    Raises:
        UserError: naming the nearest size that can be.
    """
    if batch_size % replicas or batch_size < 2 * replicas:
        nearest = max(2, round(batch_size / replicas)) * replicas
        raise UserError(
            f"batch_size={batch_size} over {replicas} replicas; allowed: multiples of {replicas}, "
            f"at least 2 images each. The nearest is {nearest}."
        )


def synchronize(model: keras.Model) -> None:
    """Makes statistics of batch norms and ranges of activations those of the global batch.

    Args:
        model: a model; its layers are changed.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization | ActivationQuantizer):
            layer.synchronized = True
        elif isinstance(layer, keras.Model):
            synchronize(layer)
