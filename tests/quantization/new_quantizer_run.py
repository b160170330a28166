"""Quantizes a model by a kind that the code does not have; run by `test_kinds.py`.

Prints one JSON object. A process of its own: the table is read when the package is imported.
"""

import json
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfcq
from tfcq.settings.training import config_from_flat, policy

model = keras.Sequential(
    [keras.Input((6, 6, 2)), layers.Conv2D(3, 3, activation="relu", name="conv"),
     layers.Flatten(), layers.Dense(2, name="dense")]
)  # fmt: skip
images = tf.random.stateless_normal([4, 6, 6, 2], [1, 2])
config = config_from_flat({"weight_quantizer": "binary", "activation_quantizer": "binary"})
quantized = tfcq.quantizable(model, policy(config))
precision = tfcq.Precision(4, 4)
outputs = quantized(images, precision=precision)
conv = quantized.get_layer("conv")
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "model.keras")
    quantized.save(path)
    loaded = tfcq.load(path)
print(
    json.dumps(
        {
            "kernel": np.unique(conv.quantized_kernel(precision)).tolist(),
            "activations": np.unique(
                quantized.get_layer("conv_quantizer")(images, precision=precision)
            ).tolist(),
            "differs": bool(np.any(outputs != model(images))),
            # What a loaded file may hold although no policy names it.
            "stored": bool(keras.saving.get_registered_object("tfcq>StoredScaleWeightQuantizer")),
            "loaded": bool(np.array_equal(loaded(images, precision=precision), outputs)),
        }
    )
)
