"""Losses and queues over two logical CPUs; run by `test_replicas.py`.

Prints one JSON object. A process of its own: logical devices are set before TensorFlow starts.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from tests.pretraining.nt_xent import nt_xent
from tfcq.nn.replicas import shuffled, unshuffled
from tfcq.pretraining import losses
from tfcq.pretraining.moco import mocov2, mocov3
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.simclr import simclr
from tfcq.settings.policies import Policy

ROWS, WIDTH = 4, 3


def per_replica(strategy, value: np.ndarray):
    """Returns the halves of an array, one for each replica."""
    halves = np.split(value, 2)
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(halves[context.replica_id_in_sync_group])
    )


def joined(strategy, value) -> np.ndarray:
    """Returns what both replicas computed, one after the other."""
    return np.stack([part.numpy() for part in strategy.experimental_local_results(value)])


def compared(strategy, framework, a, b, mutual: bool) -> dict:
    """Returns the mean loss of the replicas and the gradient of it, as one device would see it."""

    @tf.function
    def run(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            loss = framework.compare(a, b, mutual)
            if mutual:
                loss = (loss + framework.compare(b, a, mutual)) / 2
            scaled = loss / 2
        found = tape.gradient(scaled, [a, b], unconnected_gradients="zero")
        return loss, found[0], found[1]

    loss, to_a, to_b = strategy.run(run, args=(per_replica(strategy, a), per_replica(strategy, b)))
    return {
        "loss": float(joined(strategy, loss).mean()),
        "to_a": np.concatenate(joined(strategy, to_a)).tolist(),
        "to_b": np.concatenate(joined(strategy, to_b)).tolist(),
    }


def on_one_device(loss_of, a, b) -> dict:
    """Returns the same figures of the whole batch on one device."""
    a, b = tf.constant(a), tf.constant(b)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        loss = loss_of(a, b)
    to_a, to_b = tape.gradient(loss, [a, b], unconnected_gradients="zero")
    return {"loss": float(loss), "to_a": to_a.numpy().tolist(), "to_b": to_b.numpy().tolist()}


def momentum_run(strategy) -> dict:
    """Trains BYOL with learned scales for a step; returns how its two networks moved."""
    images = np.random.default_rng(1).random((8, 6, 6, 1)).astype(np.float32)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        backbone = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(4, 3, name="stem"),
                keras.layers.ReLU(name="relu"),
                keras.layers.GlobalAveragePooling2D(name="features"),
            ]
        )
        policy = Policy("lsq", weight_quantizer="lsq", activation_quantizer="lsq")
        heads = {"projection_width": 4, "projection_hidden": 4, "predictor_width": 4}
        model = Pretrainer(
            backbone,
            "byol",
            policy=policy,
            target_momentum=0.75,
            target_momentum_schedule="constant",
            shuffle_keys=True,
            **heads,
        )
        model.compile(keras.optimizers.SGD(0.1))
    before = [own.numpy() for own, _ in model.momentum_network.pairs(*online_of(model))]
    data = tf.data.Dataset.from_tensor_slices((images, images + 0.1)).batch(8)
    history = model.fit(data, verbose=0).history
    pairs = model.momentum_network.pairs(*online_of(model))
    return {
        "loss": history["loss"][0],
        "from_followed": max(
            float(np.abs(own.numpy() - (0.75 * old + 0.25 * online.numpy())).max())
            for (own, online), old in zip(pairs, before, strict=True)
            if own.name != "step_size"
        ),
        "between_replicas": max(
            float(np.abs(np.subtract(*joined(strategy, own.value))).max()) for own, _ in pairs
        ),
        "scales_copied": all(
            np.array_equal(own.numpy(), online.numpy())
            for own, online in pairs
            if own.name == "step_size"
        ),
    }


def online_of(model) -> tuple:
    """Returns the networks that the momentum network follows."""
    return model.backbone, model.framework.projector


def main() -> None:
    """Compares two replicas with one device."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    a, b = np.random.default_rng(0).normal(size=(2, 2 * ROWS, WIDTH)).astype(np.float32)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        contrastive, keys = simclr(WIDTH, 3, 3), mocov3(WIDTH, 3, 3, 3, 0.99)
        queue = mocov2(WIDTH, WIDTH, 3, 0.999, queue_size=12)
    figures = {
        "nt_xent": compared(strategy, contrastive, a, b, True),
        "nt_xent_whole": on_one_device(lambda a, b: nt_xent(a, b, 0.5), a, b),
        "mocov3": compared(strategy, keys, a, b, False),
        "mocov3_whole": on_one_device(
            lambda a, b: (
                0.4 * losses.contrastive_cross_entropy(a, tf.stop_gradient(b), range(2 * ROWS), 0.2)
            ),
            a,
            b,
        ),
    }
    strategy.run(tf.function(lambda rows: queue.end_step([rows])), (per_replica(strategy, a),))
    kept = joined(strategy, queue.queue.value)
    figures["queue_between_replicas"] = float(np.abs(kept[0] - kept[1]).max())
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    figures["queue_from_keys"] = float(np.abs(kept[0][: 2 * ROWS] - unit).max())
    seed = tf.constant([3, 4])
    mixed = strategy.run(
        tf.function(lambda rows: shuffled(rows, seed)), (per_replica(strategy, a),)
    )
    back = strategy.run(
        tf.function(lambda rows: unshuffled(shuffled(rows, seed), seed)),
        (per_replica(strategy, a),),
    )
    mixed = np.concatenate(joined(strategy, mixed))
    figures["shuffled_is_permutation"] = sorted(mixed.tolist()) == sorted(a.tolist())
    first_half = {tuple(row) for row in a[:ROWS].tolist()}
    figures["crossed_replicas"] = any(tuple(r) not in first_half for r in mixed[:ROWS].tolist())
    figures["back"] = float(np.abs(np.concatenate(joined(strategy, back)) - a).max())
    figures["momentum"] = momentum_run(strategy)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
