"""A folder of images with a COCO JSON: `boxes:PATH`."""

import functools
import glob
import os
from concurrent import futures

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from tfcq.data.boxed.annotations import Annotations, decoded_masks, mask_coder, read_annotations
from tfcq.data.boxed.boxed_split import BoxedSplit, check_seen, with_boxes
from tfcq.data.folder_layout import SPLIT_OF, visible_folders
from tfcq.data.image_files import ImageReader, read_image
from tfcq.data.split import Record, missing_split
from tfcq.errors import UserError
from tfcq.settings import datasets

_FILE = "annotations.json"
_ALLOWED = (
    f"{_FILE} beside the images, in train and test (or val) or alone, or instances_train*.json and "
    "instances_val*.json beside folders of images"
)
_CHANNELS, _DEPTH = 3, 16


class BoxesFolderSource:
    """Images with the boxes, and perhaps the masks, of a COCO JSON.

    `PATH/train/annotations.json` and `PATH/test/...` (or `val`) are the splits, or
    `PATH/annotations.json` alone is the training split; of COCO's own layout it is
    `instances_train*.json` and `instances_val*.json` in `PATH` or `PATH/annotations`. Images lie
    beside the JSON, in `images` beside it or, of COCO's layout, in the folder of the same name,
    such as `PATH/train2017`. They are read upright and in colour.

    Boxes are cut where they reach beyond their image; images without a box are not trained on.
    Both is told.

    Args:
        path: the folder.
        masks: whether masks are read, which needs pycocotools.
        strict: whether a box without area is an error; else it is named in a warning and left out.

    Raises:
        UserError: there is no such folder, no such JSON, or nothing to train on.
    """

    def __init__(self, path: str, masks: bool = False, strict: bool = True) -> None:
        self.name = f"{datasets.BOXES_PREFIX}{path}"
        self._masks, self._strict = masks, strict
        self._files = _annotation_files(path)
        self._read: dict[str, Annotations] = {}
        self.splits = tuple(self._files)
        if masks:
            mask_coder()

    def split(self, name: str) -> BoxedSplit:
        """Returns the split `"train"`, of images with boxes alone, or `"test"`, of all images.

        Raises:
            UserError: there is no such split, an image is missing or has another size than the
                JSON says, there are no masks although they are asked for, or a class of the test
                split has no box in the training split.
        """
        if name not in self._files:
            raise missing_split(self.name, name, self.splits)
        found = self._annotations(name)
        paths = _image_paths(self._files[name], found)
        if self._masks and found.segmentations is None:
            raise UserError(
                f"{self._files[name]} has boxes without a segmentation; allowed: one of each box, "
                "or a detector without masks."
            )
        counts = found.counts()
        split = BoxedSplit(
            name=name,
            size=len(paths),
            image_shape=(*_common(found.shapes), _CHANNELS),
            class_names=found.names,
            records=tf.data.Dataset.range(len(paths)).map(lambda index: {"index": index}),
            decode=self._decoder(found, paths),
            record_bytes=8,
            names=tuple(found.files),
            most_boxes=int(counts.max(initial=0)),
            masks=self._masks,
            image_ids=found.image_ids,
            category_ids=found.category_ids,
        )
        if name != "train":
            return split
        places = with_boxes(self.name, counts)
        return split if len(places) == split.size else split.subset(places)

    def _annotations(self, name: str) -> Annotations:
        """Returns what the JSON of a split holds, its classes numbered as those of training."""
        if name not in self._read:
            found = read_annotations(self._files[name], self._strict)
            if name != "train":
                train = self._annotations("train")
                found = _renumbered(found, train.names, self.name)
                check_seen(self.name, train.names, train.class_counts(), found.class_counts())
            self._read[name] = found
        return self._read[name]

    def _decoder(self, found: Annotations, paths: list[bytes]):
        read = functools.partial(
            read_image, channels=_CHANNELS, background=datasets.BACKGROUND, depth=_DEPTH
        )
        varying = (None, None, _CHANNELS)
        reader = ImageReader(self.name, paths, found.shapes, varying, read, strict=True)
        outlines = found.segmentations if self._masks else None
        kinds = [tf.float32, tf.int64, tf.bool, tf.float32, tf.uint8]

        def annotated(place: int) -> tuple[np.ndarray, ...]:
            shape = found.shapes[place]
            masks = (
                decoded_masks(outlines[place], *shape)
                if outlines
                else np.zeros((0, *shape), np.uint8)
            )
            columns = (found.boxes, found.classes, found.crowd, found.area)
            return *(column[place] for column in columns), masks

        def decode(record: Record) -> Record:
            place = [record["index"]]
            boxes, classes, crowd, area, masks = tf.numpy_function(annotated, place, kinds)
            # What has no state is not run where nobody asks for the image, but for its boxes.
            image = tf.numpy_function(reader, place, tf.uint8, stateful=False)
            classes = tf.ensure_shape(classes, [None])
            decoded = {
                "index": record["index"],
                "image": tf.ensure_shape(image, [None, None, _CHANNELS]),
                "boxes": tf.ensure_shape(boxes, [None, 4]), "classes": classes,
                "difficult": tf.zeros_like(classes, tf.bool),
                "crowd": tf.ensure_shape(crowd, [None]), "area": tf.ensure_shape(area, [None]),
            }  # fmt: skip
            if self._masks:
                decoded["masks"] = tf.ensure_shape(masks, [None, None, None])
            return decoded

        return decode


def _annotation_files(path: str) -> dict[str, str]:
    """Returns the JSON of each split."""
    datasets.check_boxed_name(f"{datasets.BOXES_PREFIX}{path}")
    found: dict[str, list[str]] = {}
    for folder in visible_folders(path):
        if split := SPLIT_OF.get(os.path.basename(folder).lower()):
            file = os.path.join(folder, _FILE)
            found.setdefault(split, []).extend([file] if os.path.isfile(file) else [])
    for folder in (path, os.path.join(path, "annotations")):
        for file in sorted(glob.glob(os.path.join(glob.escape(folder), "instances_*.json"))):
            split = _split_of_instances(file)
            found.setdefault(split, []).append(file)
    alone = os.path.join(path, _FILE)
    if not any(found.values()) and os.path.isfile(alone):
        return {"train": alone}
    for split, several in found.items():
        if len(several) > 1:
            raise UserError(
                f"{several[0]} and {several[1]} are both the {split} split; allowed: one of them."
            )
    chosen = {split: several[0] for split, several in found.items() if several}
    if "train" not in chosen:
        raise UserError(f"Folder {path!r} has no boxes to train on; allowed: {_ALLOWED}.")
    if {"test", "validation"} <= chosen.keys():
        logging.warning(
            "%s is not used: the test split is %s.", chosen["validation"], chosen["test"]
        )
    test = chosen.get("test", chosen.get("validation"))
    return {"train": chosen["train"]} | ({"test": test} if test else {})


def _split_of_instances(file: str) -> str:
    """Returns the split of a file such as instances_val2017.json."""
    rest = _rest_of_instances(file).lower()
    for word, split in sorted(SPLIT_OF.items(), key=lambda item: -len(item[0])):
        if rest.startswith(word):
            return split
    raise UserError(f"{file} tells no split; allowed: instances_train*.json, instances_val*.json.")


def _rest_of_instances(file: str) -> str:
    return os.path.basename(file).removeprefix("instances_").removesuffix(".json")


def _image_paths(file: str, found: Annotations) -> list[bytes]:
    """Returns the files of the images, after looking at the size of each.

    Raises:
        UserError: one is missing, cannot be read, or has another size.
    """
    beside = os.path.dirname(file)
    above, rest = os.path.dirname(beside), _rest_of_instances(file)
    roots = [beside, os.path.join(beside, "images")]
    if os.path.basename(file) != _FILE:
        roots += [os.path.join(beside, rest), os.path.join(above, rest), above]
    first = found.files[0]
    root = next((r for r in roots if os.path.isfile(os.path.join(r, first))), None)
    if root is None:
        raise UserError(
            f"Image {first!r} of {file} is not there; allowed: images beside it, in "
            f"{', '.join(repr(os.path.relpath(r, beside)) for r in roots[1:])}."
        )
    paths = [os.fsencode(os.path.join(root, name)) for name in found.files]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = list(pool.map(_size_or_fault, paths))
    for name, size, shape in zip(found.files, checked, found.shapes, strict=True):
        if size != shape:
            fault = size if isinstance(size, str) else f"it is {size[0]} x {size[1]} pixels"
            raise UserError(
                f"Image {name!r} of {file} cannot be used: {fault}; allowed: an image of "
                f"{shape[0]} x {shape[1]} pixels, as the file says."
            )
    return paths


def _size_or_fault(path: bytes) -> tuple[int, int] | str:
    """Returns the height and width of an image, upright, without decoding it."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(274, 1) >= 5
    except Exception as error:
        # Of damaged files Pillow raises whatever it stumbles over.
        return getattr(error, "strerror", None) or "it is no image"
    return (width, height) if turned else (height, width)


def _common(shapes: list[tuple[int, int]]) -> tuple[int | None, int | None]:
    return shapes[0] if len(set(shapes)) == 1 else (None, None)


def _renumbered(found: Annotations, names: tuple[str, ...], source: str) -> Annotations:
    """Returns annotations whose classes have the numbers of the training split's."""
    counts = found.class_counts()
    for name, count in zip(found.names, counts, strict=True):
        if count and name not in names:
            check_seen(source, [name], np.zeros(1, int), np.array([count]))
    number = np.array([names.index(n) if n in names else -1 for n in found.names])
    classes = [number[of_image] for of_image in found.classes]
    own = dict(zip(found.names, found.category_ids, strict=True))
    # What this file does not list has an id that it does not use.
    ids = tuple(own.get(name, max(own.values()) + n) for n, name in enumerate(names, 1))
    changed = {"names": names, "category_ids": ids, "classes": classes}
    return Annotations(**{**vars(found), **changed})
