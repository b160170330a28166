"""The boxes of a split as average precision compares them with detections."""

import tensorflow as tf

from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.split import Record
from tfcq.detection.average_precision import Truth
from tfcq.detection.coco_precision import encoded_masks


def truths_of(split: BoxedSplit, masks: bool = False) -> list[Truth]:
    """Returns the boxes of every image of a split, in its order.

    Images of a folder with a COCO JSON are not read for it.

    Args:
        split: the images.
        masks: whether masks are needed, as run lengths.

    Raises:
        UserError: masks are needed and pycocotools is not installed, or an image cannot be read.
    """
    names = ("boxes", "classes", "difficult", "crowd", "area") + (("masks",) if masks else ())

    def without_image(record: Record) -> Record:
        decoded = split.decode(record)
        return {name: decoded[name] for name in names}

    records = split.records.map(without_image, tf.data.AUTOTUNE)
    truths = []
    with user_errors_of_pipelines():
        for record in records.as_numpy_iterator():
            encoded = encoded_masks(record.pop("masks")) if masks else None
            truths.append(Truth(**record, masks=encoded))
    return truths
