"""Small data sets with boxes, written by the tests themselves."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf


def write_png(path: pathlib.Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.write_bytes(tf.io.encode_png(image).numpy())
    return image


def coco_json(images, annotations, names=("cat", "dog")) -> dict:
    """Returns a COCO JSON of (file, height, width) and (image, class, x, y, w, h, ...)."""
    return {
        "images": [
            {"id": 10 + i, "file_name": file, "height": height, "width": width}
            for i, (file, height, width) in enumerate(images)
        ],
        # Ids need neither begin at 0 nor be in order.
        "categories": [{"id": 7 * n, "name": name} for n, name in enumerate(names, 1)][::-1],
        "annotations": [
            {
                "id": 100 + n, "image_id": 10 + i, "category_id": 7 * (c + 1),
                "bbox": [x, y, w, h], "area": w * h / 2, "iscrowd": 0, **more,
            }
            for n, (i, c, x, y, w, h, more) in enumerate(annotations)
        ],
    }  # fmt: skip


@pytest.fixture
def write_split():
    """Returns a function that writes images and their annotations into a folder."""

    def write(folder: pathlib.Path, shapes, annotations, file="annotations.json", **more):
        names = [f"{number}.png" for number in range(len(shapes))]
        for number, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            write_png(folder / name, *shape, seed=number)
        listed = [(name, *shape) for name, shape in zip(names, shapes, strict=True)]
        found = coco_json(listed, annotations, **more)
        (folder / file).write_text(json.dumps(found))
        return found

    return write


@pytest.fixture
def records():
    """Returns a function that decodes all images of a split."""
    return lambda split: list(split.records.map(split.decode).as_numpy_iterator())
