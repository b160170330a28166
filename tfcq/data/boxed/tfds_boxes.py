"""VOC and COCO as TensorFlow Datasets has them, streamed from where they are prepared."""

import functools

import numpy as np
import tensorflow as tf
from absl import logging

from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.boxed.usable import check_seen, with_boxes
from tfcq.data.split import Record, missing_split
from tfcq.data.tfds_builder import prepared_builder, tfds
from tfcq.errors import UserError
from tfcq.settings import datasets

# Name and part of each split: VOC as detection papers use it, COCO's test part has no boxes.
_PARTS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    datasets.VOC: {
        "train": (("voc/2007", "train+validation"), ("voc/2012", "train+validation")),
        "test": (("voc/2007", "test"),),
    },
    datasets.COCO: {
        "train": (("coco/2017", "train"),),
        "test": (("coco/2017", "validation"),),
    },
}
# VOC counts pixels from 1 and names the first and the last one that belong to an object.
_FIRST_PIXEL = {datasets.VOC: 1.0, datasets.COCO: 0.0}
# Columns of a record behind the four of the box.
_LABEL, _DIFFICULT, _CROWD, _AREA = 4, 5, 6, 7


class TfdsBoxesSource:
    """`voc` (2007 and 2012 trainval, tested on 2007's test part) or `coco` (2017).

    Boxes without area, of which COCO has a few, are left out, and images without boxes are not
    trained on; both is told. All boxes are read once when a split is opened.

    Args:
        name: `voc` or `coco`.
        data_dir: where data sets are prepared; None is TFDS's own default.
        download: whether to download and prepare what is not there yet.

    Raises:
        UserError: a data set is not prepared (and may not or cannot be downloaded).
    """

    def __init__(self, name: str, data_dir: str | None = None, download: bool = False) -> None:
        self.name = name
        needed = datasets.BOXED_TFDS[name]
        self._builders = {part: prepared_builder(part, data_dir, download) for part in needed}
        self._counted: dict[str, np.ndarray] = {}
        self._file_names: dict[str, tuple[str, ...]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """`"train"` and `"test"`."""
        return tuple(_PARTS[self.name])

    def split(self, name: str) -> BoxedSplit:
        """Returns the split `"train"`, of images with boxes alone, or `"test"`, of all images.

        Raises:
            UserError: another name, a part is not there, or a class of the test split has no box
                in the training split.
        """
        if name not in self.splits:
            raise missing_split(self.name, name, self.splits)
        counts = self._counts(name)
        if name != "train":
            names, train = self._class_names(), self._counts("train")
            check_seen(self.name, names, train.sum(axis=0), counts.sum(axis=0))
        of_image = counts.sum(axis=1)
        infos = [self._builders[part].info for part, _ in _PARTS[self.name][name]]
        size = sum(info.dataset_size for info in infos)
        split = BoxedSplit(
            name=name,
            size=len(counts),
            image_shape=(None, None, 3),
            class_names=self._class_names(),
            records=self._records(name, images=True),
            decode=functools.partial(_decoded, first_pixel=_FIRST_PIXEL[self.name]),
            record_bytes=max(1, size // sum(i.splits.total_num_examples for i in infos)),
            most_boxes=int(of_image.max(initial=0)),
            masks=False,
            image_ids=self._file_names[name],
        )
        if name != "train":
            return split
        places = with_boxes(self.name, of_image)
        return split if len(places) == split.size else split.subset(places)

    def _class_names(self) -> tuple[str, ...]:
        builder = next(iter(self._builders.values()))
        return tuple(builder.info.features["objects"]["label"].names)

    def _records(self, name: str, images: bool) -> tf.data.Dataset:
        """Yields records: encoded image, and its boxes as one serialized matrix."""
        parts = [self._examples(*part, images) for part in _PARTS[self.name][name]]
        return functools.reduce(tf.data.Dataset.concatenate, parts).enumerate().map(_record_of)

    def _examples(self, name: str, part: str, images: bool) -> tf.data.Dataset:
        builder = self._builders[name]
        if missing := [one for one in part.split("+") if one not in builder.info.splits]:
            raise UserError(
                f"Data set {name!r} has no part {missing[0]!r}, which {self.name!r} needs; "
                "allowed: prepared whole, see --data_dir and --download."
            )
        features = builder.info.features["objects"].feature
        flags = {"is_difficult", "is_crowd", "area"} & set(features)
        wanted = {
            "image/filename": True,
            "objects": {"bbox": True, "label": True} | dict.fromkeys(flags, True),
        }
        found = builder.as_dataset(
            split=part,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                wanted | ({"image": True} if images else {}),
                decoders={"image": tfds.decode.SkipDecoding()} if images else None,
            ),
            # One file after the other: the order must not depend on how many there are.
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        return found.map(_with_matrix, tf.data.AUTOTUNE)

    def _counts(self, name: str) -> np.ndarray:
        """Returns how many boxes of each class an image has, without crowds, and tells faults."""
        if name not in self._counted:
            classes = len(self._class_names())
            rows, faults, names = [], [], []
            for record in self._records(name, images=False).as_numpy_iterator():
                found = tf.io.parse_tensor(record["objects"], tf.float32).numpy()
                there = _with_area(found)
                names.append(record["file"].decode())
                faults += names[-1:] * int(np.sum(~there))
                chosen = found[there & (found[:, _CROWD] == 0), _LABEL].astype(int)
                rows.append(np.bincount(chosen, minlength=classes))
            if faults:
                logging.warning(
                    "%s: %d boxes of the %s split have no area and are left out, the first of %s.",
                    self.name, len(faults), name, faults[0],
                )  # fmt: skip
            self._counted[name], self._file_names[name] = np.array(rows), tuple(names)
        return self._counted[name]


def _with_matrix(example: Record) -> Record:
    """Returns an example with one row of numbers a box, as a text: records are put together."""
    objects = example["objects"]
    box, label = objects["bbox"], tf.cast(objects["label"], tf.float32)
    no = tf.zeros_like(label)
    columns = [
        label,
        tf.cast(objects.get("is_difficult", no), tf.float32),
        tf.cast(objects.get("is_crowd", no), tf.float32),
        # What has no area of its own has that of its box, which decoding knows.
        tf.cast(objects.get("area", no - 1), tf.float32),
    ]
    matrix = tf.concat([box, tf.stack(columns, axis=1)], axis=1)
    return {
        "file": example["image/filename"],
        "image": example.get("image", tf.constant(b"")),
        "objects": tf.io.serialize_tensor(matrix),
    }


def _record_of(index: tf.Tensor, example: Record) -> Record:
    return {"index": index, **example}


def _with_area(matrix: tf.Tensor) -> tf.Tensor:
    return (matrix[:, 2] > matrix[:, 0]) & (matrix[:, 3] > matrix[:, 1])


def _decoded(record: Record, first_pixel: float) -> Record:
    image = tf.io.decode_image(record["image"], channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    matrix = tf.ensure_shape(tf.io.parse_tensor(record["objects"], tf.float32), [None, 8])
    matrix = tf.boolean_mask(matrix, _with_area(matrix))
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    scale = tf.stack([height, width, height, width])
    boxes = matrix[:, :4] * scale - tf.constant([first_pixel, first_pixel, 0.0, 0.0])
    box_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area = matrix[:, _AREA]
    return {
        "index": record["index"], "image": image, "boxes": boxes,
        "classes": tf.cast(matrix[:, _LABEL], tf.int64),
        "difficult": matrix[:, _DIFFICULT] > 0, "crowd": matrix[:, _CROWD] > 0,
        "area": tf.where(area < 0, box_area, area),
    }  # fmt: skip
