"""Trains under MirroredStrategy with two logical CPUs; run by `test_mirrored_strategy.py`.

Prints one JSON object. A process of its own: logical devices are set before TensorFlow starts.
"""

import json

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcq.pretraining.pretrainer import Pretrainer

STEPS = 3


class Counting(Pretrainer):
    """Counts how often its step is traced."""

    traces = 0

    def train_step(self, data):
        """Counts a trace, then steps."""
        Counting.traces += 1
        return super().train_step(data)


def build(recipe: str, eager: bool = False) -> Pretrainer:
    """Returns the compiled model, always with the same weights."""
    keras.utils.set_random_seed(3)
    backbone = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(6, 3, name="second"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="tiny",
    )
    heads = {"projection_width": 8, "predictor_width": 4}
    bits = {"weight_bits": "3,8"} if recipe == "ssql" else {}
    model = Counting(backbone, recipe=recipe, seed=1, **bits, **heads)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=eager)
    return model


def views(copies: int) -> tf.data.Dataset:
    """Returns one batch of 8 image pairs, repeated within the batch for each replica."""
    pair = np.random.default_rng(0).random((2, 8, 6, 6, 1)).astype(np.float32)
    batch = tuple(np.concatenate([view] * copies) for view in pair)
    return tf.data.Dataset.from_tensor_slices(batch).batch(8 * copies, drop_remainder=True).repeat()


def train(model: Pretrainer, copies: int) -> list[float]:
    """Returns the loss of each epoch, which is one step long."""
    return model.fit(views(copies), steps_per_epoch=1, epochs=STEPS, verbose=0).history["loss"]


def compared(strategy: tf.distribute.Strategy, recipe: str) -> dict:
    """Trains on one device and, with the batch doubled, on two; returns how they compare."""
    single = build(recipe, eager=True)
    single_losses = train(single, 1)
    Counting.traces = 0
    with strategy.scope():
        mirrored = build(recipe)
    mirrored_losses = train(mirrored, 2)
    between_replicas = [
        np.abs(
            np.subtract(*(v.numpy() for v in strategy.experimental_local_results(w.value)))
        ).max()
        for w in mirrored.trainable_variables
    ]
    from_single = [
        np.abs(a.numpy() - keras.ops.convert_to_numpy(b)).max()
        for a, b in zip(single.trainable_variables, mirrored.trainable_variables, strict=True)
    ]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "traces": Counting.traces,
        "single_losses": single_losses,
        "mirrored_losses": mirrored_losses,
        "between_replicas": float(max(between_replicas)),
        "from_single": float(max(from_single)),
        "step": int(keras.ops.convert_to_numpy(mirrored.step)),
        "bits": keras.ops.convert_to_numpy(mirrored.bits).tolist(),
        "single_bits": single.bits.numpy().tolist(),
    }


def main() -> None:
    """Prints the figures of a recipe without and of one with quantized passes."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({recipe: compared(strategy, recipe) for recipe in ("float", "ssql")}))


if __name__ == "__main__":
    main()
