"""Trains the same model five times over; run by `test_determinism.py`, prints one JSON object."""

import json

import keras
import tensorflow as tf
from keras import layers

from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.training.determinism import make_deterministic


def trained_weights() -> list:
    """Returns the weights after three steps of SimCLR, whose losses add up in several places."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model = Pretrainer(backbone, "simclr", "float", projection_width=32, projection_hidden=32)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    views = tf.random.stateless_uniform((2, 32, 8, 8, 1), (0, 0))
    data = tf.data.Dataset.from_tensors((views[0], views[1])).repeat(3)
    model.fit(data, verbose=0)
    return [variable.numpy().tolist() for variable in model.trainable_variables]


make_deterministic()
runs = [trained_weights() for _ in range(5)]
print(json.dumps({"equal_to_first": [run == runs[0] for run in runs[1:]]}))
