#!/usr/bin/env python3
"""Compares views with those that torchvision makes of the same images from the same draws.

    .venv/bin/python tools/torchvision_views.py --peer=VENV/bin/python --picture=results/views.jpg

torchvision, of the interpreter `--peer`, makes them twice: of float tensors, and of Pillow images
as lightly does, which rounds to whole pixels after each step and blurs by an approximation.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

SIZE, IMAGES, SHOWN = 224, 48, 8
PEER = """
import json, sys, numpy as np, torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

folder = sys.argv[1]
views, images, steps = (np.load(f"{folder}/{name}.npy") for name in ("views", "images", "steps"))
size = views.shape[1]


def view(image, step, pillow):
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    made = Image.fromarray(image) if pillow else tensor
    bilinear = F.InterpolationMode.BILINEAR
    made = F.resized_crop(made, *map(int, step[:4]), [size, size], bilinear, antialias=True)
    flip, jitter, brightness, contrast, saturation, hue, grey, blur, sigma = map(float, step[4:])
    made = F.hflip(made) if flip else made
    if jitter:
        made = F.adjust_contrast(F.adjust_brightness(made, brightness), contrast)
        made = F.adjust_hue(F.adjust_saturation(made, saturation), hue)
    made = F.rgb_to_grayscale(made, 3) if grey else made
    if blur and pillow:
        made = made.filter(ImageFilter.GaussianBlur(sigma))
    elif blur:
        made = F.gaussian_blur(made, [size // 20 * 2 + 1] * 2, [sigma] * 2)
    return np.asarray(made) / 255 if pillow else made.permute(1, 2, 0).numpy()


found = {}
for name in ("tensor", "Pillow"):
    made = np.stack([view(*one, name == "Pillow") for one in zip(images, steps)])
    away = 255 * np.abs(made - views)
    found[name] = {"greatest": float(away.max()), "mean": float(away.mean())}
np.save(f"{folder}/made.npy", made)
print(json.dumps(found))
"""


def main() -> None:
    """Prints the greatest and the mean difference in steps of 1/255."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="Python interpreter with torchvision")
    parser.add_argument("--picture", help="also write our views above those of Pillow images")
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        views, images, steps = views_and_steps()
        for name, values in (("views", views), ("images", images), ("steps", steps)):
            np.save(pathlib.Path(folder, f"{name}.npy"), values)
        command = [arguments.peer, "-c", PEER, folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        made = np.load(pathlib.Path(folder, "made.npy"))
    for name, figures in json.loads(done.stdout.splitlines()[-1]).items():
        print(name, *(f"{key} {value:.2g}" for key, value in figures.items()))
    if arguments.picture:
        rows = [np.concatenate(list(one[:SHOWN]), axis=1) for one in (views, made)]
        whole = Image.fromarray(np.round(255 * np.concatenate(rows)).astype(np.uint8))
        whole.reduce(2).save(arguments.picture)


def views_and_steps():
    """Returns views, images, and per image the crop and what is done to it in numbers."""
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_sample_images

    from tfcq.data.augmentation import DRAWS, augmentation_for, crop_boxes

    recipe = augmentation_for(SIZE, 3)
    photographs = load_sample_images().images
    images = np.stack([photographs[number % 2] for number in range(IMAGES)])
    draws = np.random.default_rng(0).random((IMAGES, len(DRAWS)), np.float32)
    given = zip(tf.constant(images), tf.constant(draws), strict=True)
    views = [recipe.augment_one(*one, SIZE).numpy() for one in given]
    draw = dict(zip(DRAWS, draws.T, strict=True))
    steps = [
        *crop_boxes(recipe, draw, *images.shape[1:3]),
        draw["flip"] < recipe.flip,
        draw["jitter"] < recipe.jitter_probability,
        1 + recipe.brightness * (2 * draw["brightness"] - 1),
        1 + recipe.contrast * (2 * draw["contrast"] - 1),
        1 + recipe.saturation * (2 * draw["saturation"] - 1),
        recipe.hue * (2 * draw["hue"] - 1),
        draw["grayscale"] < recipe.grayscale,
        draw["blur"] < recipe.blur,
        recipe.blur_sigma[0] + draw["blur_sigma"] * np.ptp(recipe.blur_sigma),
    ]
    return np.stack(views), images, np.stack(steps, axis=1).astype(np.float64)


if __name__ == "__main__":
    main()
