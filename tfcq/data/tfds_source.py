"""Any image data set known to TensorFlow Datasets, read from where it is prepared."""

import numpy as np
import tensorflow as tf

from tfcq.data.split import Record, Split, missing_split
from tfcq.data.tfds_builder import prepared_builder, tfds
from tfcq.errors import UserError

# Some data sets publish no labelled test part; their validation part then is the test.
_PARTS = {"train": ("train",), "test": ("test", "validation")}
# Papers train on both labelled parts of these, 2,040 and 3,760 images (SSQL, Table 9).
TRAINED_WITH_VALIDATION = ("dtd", "oxford_flowers102")

# Their test part has no labels.
TESTED_ON_VALIDATION = ("imagenet2012", "imagenet2012_subset", "imagenet_resized")


class TfdsSource:
    """A TensorFlow data set with one image, and perhaps one class label, per example.

    Examples come in the order in which they are stored. The network is used only to download.
    The training split of `oxford_flowers102` and `dtd` includes their validation part.

    Args:
        name: a TFDS name: `name`, `name/config`, `name:version` or `name/config:version`.
        data_dir: where data sets are prepared; None is TFDS's own default.
        download: whether to download and prepare what is not there yet.

    Raises:
        UserError: no such data set, it is not prepared (and may not or cannot be downloaded), or
            it holds no images.
    """

    def __init__(self, name: str, data_dir: str | None = None, download: bool = False):
        self.name = name
        self._builder = prepared_builder(name, data_dir, download)
        self._image = self._image_feature()
        self._label = self._label_feature()
        known = self._builder.info.splits
        self._parts = {
            split: next(part for part in parts if part in known)
            for split, parts in _PARTS.items()
            if any(part in known for part in parts)
        }
        whole = {"train", "validation", "test"} <= set(known)
        if whole and self._builder.name in TRAINED_WITH_VALIDATION:
            self._parts["train"] = "train+validation"
        if self._builder.name in TESTED_ON_VALIDATION and "validation" in known:
            self._parts["test"] = "validation"
        self.splits = tuple(self._parts)

    def split(self, name: str) -> Split:
        """Returns the split `"train"`, or `"test"` (else TFDS's validation split).

        Raises:
            UserError: the data set has no such split.
        """
        if name not in self._parts:
            raise missing_split(self.name, name, self.splits)
        info = self._builder.info
        parts = [info.splits[part] for part in self._parts[name].split("+")]
        image, label = self._image, self._label
        feature = info.features[image]
        wanted = {image: True} | ({label: True} if label else {})
        examples = self._builder.as_dataset(
            split=self._parts[name],
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                wanted, decoders={image: tfds.decode.SkipDecoding()}
            ),
            # One file after the other: the order must not depend on how many there are.
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )

        def record_of(index: tf.Tensor, example: Record) -> Record:
            number = example[label] if label else tf.constant(-1, tf.int64)
            return {"index": index, "image": example[image], "label": number}

        def decode(record: Record) -> Record:
            return {**record, "image": feature.decode_example(record["image"])}

        return Split(
            name=name,
            size=int(examples.cardinality()),
            image_shape=tuple(feature.shape),
            class_names=tuple(info.features[label].names) if label else None,
            records=examples.enumerate().map(record_of),
            decode=decode,
            record_bytes=max(
                1, sum(p.num_bytes for p in parts) // max(1, sum(p.num_examples for p in parts))
            ),
        )

    def _image_feature(self) -> str:
        info = self._builder.info
        images = [
            key
            for key, feature in info.features.items()
            if isinstance(feature, tfds.features.Image) and np.dtype(feature.np_dtype) == np.uint8
        ]
        if info.supervised_keys and info.supervised_keys[0] in images:
            return info.supervised_keys[0]
        if len(images) != 1:
            raise UserError(
                f"Data set {self.name!r} has {len(images)} images per example"
                f" ({', '.join(info.features)}); allowed: data sets with one 8-bit image each."
            )
        return images[0]

    def _label_feature(self) -> str | None:
        info = self._builder.info
        for key in [*(info.supervised_keys or ())[1:], "label"]:
            if key in info.features and isinstance(info.features[key], tfds.features.ClassLabel):
                return key
        return None
