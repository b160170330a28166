"""Trains under MirroredStrategy with two logical CPUs; run by `test_mirrored_strategy.py`.

Prints one JSON object. A process of its own: logical devices are set before TensorFlow starts.
"""

import json

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcq.nn.activation_ranges import activation_layers
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.training.distribution import finite_everywhere, synchronize

IMAGES = 8
HEADS = {"projection_width": 8, "projection_hidden": 8, "predictor_width": 4}
# Framework, recipe, steps, whether ranges are of the global batch, and whether in a graph, which
# takes seconds to build.
CASES = {
    "float": ("byol", "float", 3, True, True),
    "mocov3_ssql": ("mocov3", "ssql", 1, True, True),
    "simclr_cq_c": ("simclr", "cq_c", 1, True, False),
    "byol_cq_c": ("byol", "cq_c", 1, True, False),
    "local_ranges": ("mocov3", "ssql", 1, False, False),
}


class Counting(Pretrainer):
    """Counts how often its step is traced."""

    traces = 0

    def train_step(self, data):
        """Counts a trace, then steps."""
        Counting.traces += 1
        return super().train_step(data)


def build(framework: str, recipe: str, ranges: bool, graph: bool) -> Pretrainer:
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
    heads = {n: v for n, v in HEADS.items() if framework != "simclr" or n != "predictor_width"}
    model = Counting(backbone, framework, recipe, seed=1, **heads)
    for network in model.networks:
        synchronize(network)
        for _, quantizer in activation_layers(network):
            quantizer.synchronized = ranges
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=not graph)
    return model


def train(model: Pretrainer, steps: int) -> dict[str, list[float]]:
    """Returns the figures of each epoch, which is one step long; no two images are alike."""
    views = np.random.default_rng(0).normal(size=(2, IMAGES, 6, 6, 1))
    # Other sizes on the second replica, so that its ranges are others too.
    views[:, IMAGES // 2 :] *= 2
    batches = tf.data.Dataset.from_tensor_slices(tuple(views)).batch(IMAGES, drop_remainder=True)
    return model.fit(batches.repeat(), steps_per_epoch=1, epochs=steps, verbose=0).history


def values(variables) -> np.ndarray:
    """Returns the values of variables, one after the other."""
    return np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in variables])


def compared(
    strategy: tf.distribute.Strategy,
    framework: str,
    recipe: str,
    steps: int,
    ranges: bool,
    graph: bool,
) -> dict:
    """Trains on one device and, with the same global batch, on two; returns how they compare."""
    single = build(framework, recipe, ranges, graph=False)
    start = values(single.trainable_variables)
    figures = train(single, steps)
    moved = values(single.trainable_variables) - start
    Counting.traces = 0
    with strategy.scope():
        mirrored = build(framework, recipe, ranges, graph)
    mirrored_figures = train(mirrored, steps)
    between_replicas = [
        np.abs(
            np.subtract(*(v.numpy() for v in strategy.experimental_local_results(w.value)))
        ).max()
        for w in mirrored.trainable_variables
    ]
    apart = values(mirrored.trainable_variables) - values(single.trainable_variables)
    return {
        "replicas": strategy.num_replicas_in_sync,
        "traces": Counting.traces,
        "figures": {n: [figures[n], mirrored_figures[n]] for n in ("loss", "feature_std_ratio")},
        "between_replicas": float(max(between_replicas)),
        "apart": float(np.linalg.norm(apart) / np.linalg.norm(moved)),
        "step": int(keras.ops.convert_to_numpy(mirrored.step)),
        "bits": keras.ops.convert_to_numpy(mirrored.bits).tolist(),
        "single_bits": single.bits.numpy().tolist(),
    }


def after_infinity_on_the_second(strategy: tf.distribute.Strategy) -> list[float]:
    """Returns a variable, from 1 and 2, after a step whose gradients overflow on one replica."""
    with strategy.scope():
        variable = keras.Variable([1.0, 2.0], dtype="float32")
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        optimizer.build([variable])

    def step() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.where(tf.equal(number, 1), [np.inf, 1.0], [1.0, 1.0])
        gradients = finite_everywhere([gradient, None])
        optimizer.apply_gradients([(gradients[0], variable)])

    strategy.run(step)
    return keras.ops.convert_to_numpy(variable).tolist()


def main() -> None:
    """Prints the figures of each case."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    # In float32, a last bit can move a value on a rounding tie by a whole level.
    keras.config.set_floatx("float64")
    found = {"after_infinity": after_infinity_on_the_second(strategy)}
    print(json.dumps(found | {name: compared(strategy, *case) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
