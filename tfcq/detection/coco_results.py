"""What was found in images as COCO's results, which pycocotools and other tools read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.detection.average_precision import Detections


def coco_results(split: BoxedSplit, found: Sequence[Detections]) -> list[dict[str, Any]]:
    """Returns detections as COCO writes them: `pycocotools.coco.COCO.loadRes` reads the list.

    Args:
        split: the images.
        found: what was found in each, in their order.

    Returns:
        Of each detection `image_id` and `category_id` as the data have them, `bbox` (x, y, width
        and height in pixels of the image), `score` and, where there are masks, `segmentation`, run
        lengths.
    """
    images, categories = split.image_ids, split.category_ids
    results = []
    indices = split.records.map(lambda record: record["index"]).as_numpy_iterator()
    for index, one in zip(indices, found, strict=True):
        image = int(index) if images is None else images[index]
        boxes = np.asarray(one.boxes, np.float64).tolist()
        for place, (y1, x1, y2, x2) in enumerate(boxes):
            number = int(one.classes[place])
            results.append(
                {
                    "image_id": image,
                    "category_id": number if categories is None else categories[number],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(one.scores[place]),
                }
            )
            if one.masks is not None:
                mask = one.masks[place]
                # Bytes in memory, a text in a file.
                results[-1]["segmentation"] = {**mask, "counts": mask["counts"].decode()}
    return results
