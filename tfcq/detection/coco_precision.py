"""Average precision as COCO scores it, of boxes and of masks, by pycocotools."""

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tfcq.detection.average_precision import THRESHOLDS, Detections, Truth, check_scorable
from tfcq.errors import UserError

_FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
# Places of AP50 and AP75 among the overlaps of AP.
_THRESHOLDS = [THRESHOLDS.index(overlap) for overlap in (0.5, 0.75)]


def encoded_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Returns masks as run lengths, which take a hundredth of the memory.

    Args:
        masks: 0 and 1, or bool, [N, height, width].

    Raises:
        UserError: pycocotools is not installed.
    """
    encode = _pycocotools()[0].encode
    return [encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def coco_figures(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    class_count: int,
    masks: bool = False,
) -> dict[str, float | None]:
    """Returns COCO's average precision in percent, the mean over all classes that have a box.

    `AP` is the mean over overlaps of 0.5 to 0.95, `AP50` and `AP75` are at one of them; `AP_small`,
    `AP_medium` and `AP_large` of objects below 32 squared pixels, between, and above 96 squared;
    None where there are no such objects. Of an image 100 detections count.

    Detections inside a crowd count neither way. COCO knows no difficult boxes; here they are left
    out as it leaves out boxes of another size: one detection of each counts neither way.

    Args:
        truths: the boxes of each image.
        detections: what was found in each, in the same order.
        class_count: number of classes.
        masks: whether masks are compared instead of boxes.

    Raises:
        UserError: pycocotools is not installed, there is no box that must be found, or masks are
            asked for and missing.
    """
    return coco_figures_by_class(truths, detections, class_count, masks)[0]


def coco_figures_by_class(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    class_count: int,
    masks: bool = False,
) -> tuple[dict[str, float | None], list[dict[str, float | None]]]:
    """Returns what `coco_figures` does, and `AP`, `AP50` and `AP75` of each class.

    Args:
        truths: as for `coco_figures`.
        detections: as for `coco_figures`.
        class_count: as for `coco_figures`; a class without a box has None.
        masks: as for `coco_figures`.

    Raises:
        UserError: as `coco_figures` does.
    """
    _, new_index, new_rule = _pycocotools()
    check_scorable(truths)
    rows = [_rows(truth, masks, "boxes") for truth in truths]
    for truth, of_image in zip(truths, rows, strict=True):
        for row, crowd, difficult, area in zip(
            of_image, truth.crowd, truth.difficult, truth.area, strict=True
        ):
            # Beyond COCO's ranges of sizes, which is how it leaves a box out.
            row |= {"iscrowd": int(crowd), "area": np.inf if difficult else float(area)}
    found = [_rows(one, masks, "detections") for one in detections]
    for one, of_image in zip(detections, found, strict=True):
        for row, score in zip(of_image, one.scores, strict=True):
            row["score"] = float(score)
    kind = "segm" if masks else "bbox"
    # pycocotools prints what it does, line by line.
    with contextlib.redirect_stdout(io.StringIO()):
        rule = new_rule(
            _indexed(rows, class_count, new_index), _indexed(found, class_count, new_index), kind
        )
        rule.evaluate()
        rule.accumulate()
        rule.summarize()
    # Thresholds, recalls, classes, sizes of objects (all first), numbers of detections (100 last).
    precision = rule.eval["precision"][:, :, :, 0, -1]
    # -1 where there are no such objects, at all recalls of all thresholds.
    columns = np.moveaxis(precision, 2, 0).mean(axis=2)
    return _named(rule.stats), [_named([c.mean(), *c[_THRESHOLDS]]) for c in columns]


def _named(values: Iterable[float]) -> dict[str, float | None]:
    found = zip(_FIGURES, values, strict=False)
    return {name: None if value < 0 else 100 * float(value) for name, value in found}


def _pycocotools() -> tuple[Any, Callable, Callable]:
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            "COCO's average precision and masks need pycocotools; install it with"
            " `pip install pycocotools`."
        ) from error
    return mask, COCO, COCOeval


def _rows(of_image: Truth | Detections, masks: bool, what: str) -> list[dict[str, Any]]:
    """Returns the boxes of an image as COCO writes them, without what tells truth and detection."""
    boxes = np.asarray(of_image.boxes, np.float64).reshape(-1, 4)
    rows: list[dict[str, Any]] = [
        {"category_id": int(number), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for number, (y1, x1, y2, x2) in zip(of_image.classes, boxes.tolist(), strict=True)
    ]
    if masks:
        if of_image.masks is None or len(of_image.masks) != len(boxes):
            count = "no" if of_image.masks is None else len(of_image.masks)
            raise UserError(f"{len(boxes)} {what} have {count} masks; allowed: a mask for each.")
        area = _pycocotools()[0].area
        for row, mask in zip(rows, of_image.masks, strict=True):
            row |= {"segmentation": mask, "area": float(area(mask))}
    else:
        for row in rows:
            row["area"] = row["bbox"][2] * row["bbox"][3]
    return rows


def _indexed(rows: list[list[dict[str, Any]]], class_count: int, new_index: Callable) -> Any:
    """Returns rows of images as the index that pycocotools compares."""
    flat = [{"image_id": image, **row} for image, of_image in enumerate(rows) for row in of_image]
    index = new_index()
    index.dataset = {
        # Sizes are asked for and not used: masks have their own.
        "images": [{"id": image, "height": 0, "width": 0} for image in range(len(rows))],
        "categories": [{"id": number} for number in range(class_count)],
        # From 1: pycocotools takes 0 for no match.
        "annotations": [{"iscrowd": 0, **row, "id": number} for number, row in enumerate(flat, 1)],
    }
    index.createIndex()
    return index
