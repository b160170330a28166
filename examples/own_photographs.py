"""Pre-trains on a folder of your own photographs, scores every bit-width and writes an int8 model.

    python examples/own_photographs.py --photographs=FOLDER

FOLDER holds one sub-folder of images per class; the classes serve the scores alone.
"""

# %% [markdown]
# # A folder of your own photographs
#
# The folder holds one sub-folder per class. Pre-training looks at no class; they serve the scores
# at the end. What the commands do for you here is spelled out; they can also be cut off and go on:
#
# ```
# python -m tfcq.train --dataset=folder:FOLDER --holdout=0.2 --run_dir=RUN
# python -m tfcq.evaluate --run_dir=RUN
# python -m tfcq.export --run_dir=RUN
# ```

# %%
import argparse
import pathlib
import sys
import tempfile

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression

import tfcq

# %% Settings: change the defaults here, or give others to the script, such as --epochs=20
parser = argparse.ArgumentParser(description="Pre-trains on a folder of photographs")
parser.add_argument("--photographs", default="photographs", help="folder of class folders")
parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
parser.add_argument("--color_mode", default="rgb", help="rgb or grayscale")
parser.add_argument("--depth", type=int, default=20, help="layers of the ResNet: 8, 14, 20, ...")
parser.add_argument("--width", type=int, default=32, help="channels of the first stage")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch_size", type=int, default=128)
parser.add_argument("--output", default="own_photographs", help="folder for the results")
settings = parser.parse_args([] if "ipykernel" in sys.modules else None)
output = pathlib.Path(settings.output)
try:
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
except OSError as error:
    sys.exit(f"--output={output} cannot be written to: {error.strerror}")
keras.utils.set_random_seed(0)

# %% The images; a fifth of them, drawn by chance, is kept for testing
kinds = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}
found = pathlib.Path(settings.photographs).glob("*/**/*")
if (count := sum(file.suffix.lower() in kinds for file in found)) < 5:
    sys.exit(
        f"--photographs={settings.photographs} holds {count} images in class folders; allowed: a "
        f"folder with at least 5 ({', '.join(sorted(kinds))}) in its sub-folders."
    )
parts = keras.utils.image_dataset_from_directory(
    settings.photographs,
    image_size=(settings.size, settings.size),
    crop_to_aspect_ratio=True,
    color_mode=settings.color_mode,
    validation_split=0.2,
    subset="both",
    seed=0,
    batch_size=None,
)
(train_pixels, train_labels), (test_pixels, test_labels) = (
    (
        np.stack([np.asarray(image) for image, _ in part]).round().astype("uint8"),
        np.array([int(label) for _, label in part]),
    )
    for part in parts
)
if len(set(train_labels)) < 2:
    sys.exit(f"--photographs={settings.photographs} has images of one class; allowed: two or more.")
train_images, test_images = (
    pixels.astype("float32") / 255 for pixels in (train_pixels, test_pixels)
)

# %% SSQL pre-training: one training for every bit-width
backbone = tfcq.cifar_resnet(settings.depth, settings.width, train_pixels.shape[1:])
pretrainer = tfcq.Pretrainer(backbone, recipe="ssql", projection_width=256, predictor_width=64)
batch_size = min(settings.batch_size, len(train_pixels))
steps = settings.epochs * (len(train_pixels) // batch_size)
rate = keras.optimizers.schedules.CosineDecay(0.05 * batch_size / 128, steps)
pretrainer.compile(keras.optimizers.SGD(rate, momentum=0.9))
pretrainer.fit(train_pixels, batch_size=batch_size, epochs=settings.epochs, verbose=2)

# %% A linear probe at every bit-width: how well do frozen features tell the classes apart?
encoder = pretrainer.backbone
tfcq.calibrate(encoder, train_images[:1024])
features = tfcq.FeatureExtractor(encoder)
accuracies = {}
for name in ("fp", "8w8a", "4w4a", "2w4a"):
    bits = tfcq.BitWidth(None, None) if name == "fp" else tfcq.BitWidth(int(name[0]), int(name[2]))
    probe = LogisticRegression(max_iter=1000)
    probe.fit(features(train_images, bits), train_labels)
    accuracies[name] = probe.score(features(test_images, bits), test_labels)
    print(f"{name:>5}: {accuracies[name]:.1%} of {len(test_labels)} test images")

# %% The encoder as Keras and as int8 files; the latter takes raw uint8 pixels
encoder.save(output / "encoder.keras")
deployed = tfcq.requantizable(encoder, "int8")
tfcq.calibrate(deployed, train_images[:1024])
(output / "encoder_int8.tflite").write_bytes(tfcq.int8_tflite(deployed, train_images[:1024]))
print(f"Written: {output / 'encoder.keras'} and {output / 'encoder_int8.tflite'}")
