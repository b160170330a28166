"""The boxes and detections of the vectors, as they are scored."""

import numpy as np

from tfcq.detection.average_precision import Detections, Truth


def truth_of(boxes, classes=None, difficult=False, crowd=False, area=None, masks=None):
    """Returns boxes of an image, of class 0 and to be found where nothing else is said."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    count = len(boxes)
    return Truth(
        boxes,
        np.zeros(count, int) if classes is None else np.array(classes, int),
        np.broadcast_to(difficult, count),
        np.broadcast_to(crowd, count),
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if area is None else np.array(area),
        masks,
    )


def upper_parts(boxes, encode):
    """Returns masks that fill the upper part of each box, as the tool made them."""
    if encode is None:
        return None
    masks = np.zeros((len(boxes), 64, 64), np.uint8)
    for mask, (y1, x1, y2, x2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y1 + 0.7 * (y2 - y1)) + 1, int(x1) : int(x2)] = 1
    return encode(masks)


def truths_of(vectors, difficult=True, crowd=True, encode=None):
    """Returns the boxes of each image, with or without what is not to be found."""
    rows = vectors["truth"]
    return [
        truth_of(
            of_image[:, 1:5], of_image[:, 5],
            of_image[:, 6].astype(bool) & difficult, of_image[:, 7].astype(bool) & crowd,
            masks=upper_parts(of_image[:, 1:5], encode),
        )
        for of_image in (rows[rows[:, 0] == image] for image in np.unique(rows[:, 0]))
    ]  # fmt: skip


def detections_of(vectors, encode=None):
    """Returns what was found in each image."""
    rows = vectors["found"]
    return [
        Detections(
            of_image[:, 1:5], of_image[:, 6], of_image[:, 5].astype(int),
            upper_parts(of_image[:, 1:5], encode),
        )
        for of_image in (rows[rows[:, 0] == image] for image in np.unique(vectors["truth"][:, 0]))
    ]  # fmt: skip
