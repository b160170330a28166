"""A folder of images with a COCO JSON: `boxes:PATH`."""

import functools

import numpy as np
import tensorflow as tf
from absl import logging

from tfcq.data.boxed.annotated_folder import AnnotatedFolder, common_size
from tfcq.data.boxed.annotations import Annotations, decoded_masks
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.boxed.usable import with_boxes
from tfcq.data.image_files import ImageReader, read_image
from tfcq.data.split import Record, missing_split
from tfcq.settings import datasets

_DEPTH = 16


class BoxesFolderSource:
    """Images with the boxes, and perhaps the masks, of an `AnnotatedFolder`.

    They are read upright, and in colour unless all are grey and so is what looks at them. Boxes are
    cut where they reach beyond their image; images without a box are not trained on. Both is told.

    Args:
        folder: the folder.
        channels: 1 where grey images stay grey.
    """

    def __init__(self, folder: AnnotatedFolder, channels: int = 3) -> None:
        self.name, self.splits, self._folder = folder.name, folder.splits, folder
        self._wanted = channels

    def split(self, name: str) -> BoxedSplit:
        """Returns the split `"train"`, of images with boxes alone, or `"test"`, of all images.

        Raises:
            UserError: there is no such split, or its JSON or its images cannot be used, see
                `AnnotatedFolder`.
        """
        if name not in self.splits:
            raise missing_split(self.name, name, self.splits)
        found, paths = self._folder.annotations(name), self._folder.paths(name)
        channels = 1 if self._wanted == 1 and self._folder.is_grey() else 3
        if channels == 3 and (grey := self._folder.grey(name)):
            logging.warning(
                "%s: %d of %d images of the %s split are grey and read as colour.",
                self.name, grey, len(paths), name,
            )  # fmt: skip
        counts = found.counts()
        split = BoxedSplit(
            name=name,
            size=len(paths),
            image_shape=(*common_size(found.shapes), channels),
            class_names=found.names,
            records=tf.data.Dataset.range(len(paths)).map(lambda index: {"index": index}),
            decode=self._decoder(found, paths, channels),
            record_bytes=8,
            names=tuple(found.files),
            most_boxes=int(counts.max(initial=0)),
            masks=self._folder.masks,
            image_ids=found.image_ids,
            category_ids=found.category_ids,
        )
        if name != "train":
            return split
        places = with_boxes(self.name, counts)
        return split if len(places) == split.size else split.subset(places)

    def _decoder(self, found: Annotations, paths: list[bytes], channels: int):
        read = functools.partial(
            read_image, channels=channels, background=datasets.BACKGROUND, depth=_DEPTH
        )
        reader = ImageReader(self.name, paths, found.shapes, channels, read, strict=True)
        outlines = found.segmentations if self._folder.masks else None
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
                "image": tf.ensure_shape(image, [None, None, channels]),
                "boxes": tf.ensure_shape(boxes, [None, 4]), "classes": classes,
                "difficult": tf.zeros_like(classes, tf.bool),
                "crowd": tf.ensure_shape(crowd, [None]), "area": tf.ensure_shape(area, [None]),
            }  # fmt: skip
            if self._folder.masks:
                decoded["masks"] = tf.ensure_shape(masks, [None, None, None])
            return decoded

        return decode
