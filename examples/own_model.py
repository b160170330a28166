"""Makes a Keras model of your own quantizable, pre-trains it, and converts it to int8.

python examples/own_model.py
"""

# %% [markdown]
# # A Keras model of your own
#
# Any functional or sequential model from images to features, whose kernels lie in `Conv2D`,
# `DepthwiseConv2D` and `Dense` layers. What else holds a kernel is left in float by name, as in
# `tfcq.quantizable(model, overrides={"that_layer": "fp"})`. The images are scikit-learn's digits.

# %%
import argparse
import pathlib
import sys
import tempfile

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import tfcq

# %% Settings: change the defaults here, or give others to the script, such as --epochs=5
parser = argparse.ArgumentParser(description="Pre-trains a model of your own")
parser.add_argument("--epochs", type=int, default=50)
parser.add_argument("--output", default="own_model", help="folder for the results")
settings = parser.parse_args([] if "ipykernel" in sys.modules else None)
output = pathlib.Path(settings.output)
try:
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
except OSError as error:
    sys.exit(f"--output={output} cannot be written to: {error.strerror}")
keras.utils.set_random_seed(0)
pixels = (load_digits().images[..., None] * 255 / 16).round().astype("uint8")
images = pixels.astype("float32") / 255

# %% The model, as you would write it anyhow
inputs = keras.Input((8, 8, 1))
x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="first")(inputs)
x = layers.BatchNormalization(name="first_norm")(x)
x = layers.ReLU(name="first_relu")(x)
shortcut = x
x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="second")(x)
x = layers.BatchNormalization(name="second_norm")(x)
x = layers.Add(name="sum")([x, shortcut])
x = layers.ReLU(name="second_relu")(x)
model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="features")(x), name="mine")

# %% Its quantizable copy: the same without `precision`, and what is quantized is told
quantizable = tfcq.quantizable(model)
print("Equal to the last bit:", np.array_equal(model(images[:8]), quantizable(images[:8])))
print(tfcq.summary(quantizable))

# %% Pre-training without labels
pretrainer = tfcq.Pretrainer(quantizable, recipe="ssql", projection_width=64, predictor_width=32)
pretrainer.compile(keras.optimizers.SGD(0.05, momentum=0.9))
pretrainer.fit(pixels, batch_size=128, epochs=settings.epochs, verbose=2)

# %% Ranges, and features at any bit-width
encoder = pretrainer.backbone
tfcq.calibrate(encoder, images)
floats = np.asarray(encoder(images))
cosines = {}
for weight_bits, activation_bits in ((8, 8), (4, 4), (2, 4)):
    precision = tfcq.Precision(weight_bits, activation_bits)
    features = np.asarray(encoder(images, precision=precision))
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(floats, axis=1)
    name = f"{weight_bits}w{activation_bits}a"
    cosines[name] = float(np.mean(np.sum(features * floats, axis=1) / norms))
    print(f"{name}: cosine to the float features {cosines[name]:.4f}")

# %% Saved, loaded, and as an int8 file that takes raw uint8 pixels
encoder.save(output / "encoder.keras")
loaded = tfcq.load(output / "encoder.keras")
deployed = tfcq.requantizable(loaded, "int8")
tfcq.calibrate(deployed, images)
(output / "encoder_int8.tflite").write_bytes(tfcq.int8_tflite(deployed, images))
print(f"Written: {output / 'encoder.keras'} and {output / 'encoder_int8.tflite'}")
