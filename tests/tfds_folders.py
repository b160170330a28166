"""Small folders of TensorFlow Datasets, written as its own builders would find them."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def write(name, data_dir, parts, example):
    """Writes a data set as TFDS's own builder would find it."""
    known = tfds.builder(name, data_dir=data_dir)
    folder = known.data_dir
    tf.io.gfile.makedirs(folder)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=known.name, version=known.version, data_dir=folder, module_name=__name__,
            config_name=known.builder_config.name if known.builder_config else None,
        ),
        features=known.info.features,
        disable_shuffling=True,
    )  # fmt: skip
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    writer.initialize_splits(list(parts))
    for part, examples in parts.items():
        writer.add_examples({part: [example(i, e) for i, e in enumerate(examples)]})
    writer.close_all()


def write_voc(data_dir, years):
    """Writes VOC; of each example: height, width, and boxes as VOC's files have them.

    That is x and y of the first and the last pixel, counted from 1, class, and whether difficult.
    """
    for year, parts in years.items():
        write(f"voc/{year}", data_dir, parts, _voc_example)


def _voc_example(number, example):
    height, width, boxes = example
    objects = [
        {
            "bbox": tfds.features.BBox(y1 / height, x1 / width, y2 / height, x2 / width),
            "label": label, "is_difficult": difficult, "is_truncated": False, "pose": "frontal",
        }
        for x1, y1, x2, y2, label, difficult in boxes
    ]  # fmt: skip
    labels = sorted({one["label"] for one in objects})
    return {
        "image": np.full((height, width, 3), height, np.uint8),
        "image/filename": f"{number}.jpg", "objects": objects,
        "labels": labels, "labels_no_difficult": labels,
    }  # fmt: skip
