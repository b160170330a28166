"""Fine-tunes a pre-trained backbone with labels, quantizes it and checks the int8 file.

python examples/fine_tune_and_export.py --backbone=RUN/backbone.keras
"""

# %% [markdown]
# # Fine-tune and export
#
# A pre-trained backbone gets a classifier and is fine-tuned in float; then it is quantized after
# training, or trained on at its bit-width, and what runs on the device is checked. The images are
# scikit-learn's digits; put your own, with labels, in their place.

# %%
import argparse
import pathlib
import sys
import tempfile

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfcq

# %% Settings: change the defaults here, or give others to the script, such as --epochs=5
parser = argparse.ArgumentParser(description="Fine-tunes a backbone and exports it")
parser.add_argument("--backbone", help="a run's backbone.keras; default one of random weights")
parser.add_argument("--epochs", type=int, default=20, help="of float fine-tuning")
parser.add_argument("--quantized_epochs", type=int, default=5, help="at 3 bits")
parser.add_argument("--width", type=int, default=16, help="of the backbone of random weights")
parser.add_argument("--output", default="fine_tune_and_export", help="folder for the results")
settings = parser.parse_args([] if "ipykernel" in sys.modules else None)
output = pathlib.Path(settings.output)
try:
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
except OSError as error:
    sys.exit(f"--output={output} cannot be written to: {error.strerror}")
keras.utils.set_random_seed(0)
digits = load_digits()
pixels = (digits.images[..., None] * 255 / 16).round().astype("uint8")
train_pixels, test_pixels, train_labels, test_labels = train_test_split(
    pixels, digits.target, test_size=0.2, stratify=digits.target, random_state=0
)
train_images, test_images = (
    train_pixels.astype("float32") / 255,
    test_pixels.astype("float32") / 255,
)

# %% The backbone and a classifier, fine-tuned in float by Keras alone
if settings.backbone and not pathlib.Path(settings.backbone).is_file():
    sys.exit(f"--backbone={settings.backbone} does not exist; allowed: a run's backbone.keras.")
if settings.backbone:
    encoder = tfcq.load(settings.backbone)
    backbone = tfcq.float_model(encoder)
else:
    backbone = tfcq.cifar_resnet(8, width=settings.width, input_shape=(8, 8, 1))
logits = keras.layers.Dense(10, name="classifier")(backbone.outputs[0])
classifier = keras.Model(backbone.inputs[0], logits, name="digits")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
classifier.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss, metrics=["accuracy"])
classifier.fit(train_images, train_labels, 64, settings.epochs, verbose=2)


# %% Quantized after training: ranges from images without labels
def accuracy(model, bits=None):
    """Returns the share of test images that a model classifies right at a bit-width."""
    precision = bits and tfcq.Precision(*bits)
    found = np.argmax(model(test_images, precision=precision), axis=1)
    return float(np.mean(found == test_labels))


model = tfcq.quantizable(classifier, "int8")
tfcq.calibrate(model, train_images)
accuracies = {
    "fp": accuracy(model),
    "8w8a": accuracy(model, (8, 8)),
    "3w3a": accuracy(model, (3, 3)),
}


# %% Trained on at 3 bits: each batch quantized over its own range, gradients straight through
class QuantizationAware(keras.Model):
    """Trains a quantizable model in quantized passes."""

    def __init__(self, network, weight_bits, activation_bits):
        super().__init__()
        self.network = network
        self.bits = weight_bits, activation_bits

    def call(self, images, training=None):
        precision = tfcq.Precision(*self.bits, ranges="tensor")
        return self.network(images, training=training, precision=precision)


aware = tfcq.quantizable(classifier, "int8")
trainer = QuantizationAware(aware, 3, 3)
trainer.compile(keras.optimizers.SGD(0.005, momentum=0.9), loss, metrics=["accuracy"])
trainer.fit(train_images, train_labels, 64, settings.quantized_epochs, verbose=2)
tfcq.calibrate(aware, train_images, bits="3w3a")
accuracies["3w3a, trained so"] = accuracy(aware, (3, 3))

# %% The int8 file, and its own accuracy in the runtime that devices use
model.save(output / "classifier.keras")
content = tfcq.int8_tflite(model, train_images)
(output / "classifier_int8.tflite").write_bytes(content)
interpreter = Interpreter(model_content=content)
interpreter.allocate_tensors()
(taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
right = 0
for image, label in zip(test_pixels, test_labels, strict=True):
    interpreter.set_tensor(taken["index"], image[None])
    interpreter.invoke()
    right += int(np.argmax(interpreter.get_tensor(given["index"])) == label)
accuracies["int8 file"] = right / len(test_labels)
for name, share in accuracies.items():
    print(f"{name:>16}: {share:.1%} of {len(test_labels)} test images")
print(f"Written: {output / 'classifier.keras'} and {output / 'classifier_int8.tflite'}")
