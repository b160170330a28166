"""Average precision as VOC scores it, and what is scored: boxes of images and detections in them.

No kept library has VOC's forms. COCO's stands in `coco_precision.py`; on the same boxes they differ
by several points.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcq.errors import UserError, unknown_choice

# COCO's, over which VOC's forms are averaged too (as detectron2 does).
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
# Of VOC 2007, and of the years after it.
FORMS = ("points", "area")


@dataclasses.dataclass(frozen=True)
class Truth:
    """The boxes of an image.

    Attributes:
        boxes: float [N, 4], each (y1, x1, y2, x2) in pixels.
        classes: int [N].
        difficult: boxes that need not be found, bool [N]; a detection of one counts neither way.
        crowd: boxes around many of a class, bool [N]; detections inside count neither way.
        area: pixels of each object, float [N], by which COCO tells small ones from large ones.
        masks: run lengths of each, from `coco_precision.encoded_masks`; needed to score masks.
    """

    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector found in an image.

    Attributes:
        boxes: float [N, 4].
        scores: float [N], in any order.
        classes: int [N].
        masks: as for `Truth`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


def voc_average_precision(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    class_count: int,
    form: str = "points",
    thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
    """Returns the average precision of each class at each threshold, 0 to 1.

    A detection is right if it overlaps the box that it overlaps most by more than the threshold,
    and no detection of a higher score is right about the same box.

    Args:
        truths: the boxes of each image, of one image at least.
        detections: what was found in each, in the same order.
        class_count: number of classes.
        form: `"points"`, the mean over 11 recalls (VOC 2007), or `"area"` under the curve.
        thresholds: overlaps asked for.

    Returns:
        float [thresholds, classes]; NaN where a class has no box that must be found.

    Raises:
        UserError: another form.
    """
    if form not in FORMS:
        raise unknown_choice("form of average precision", form, FORMS)
    columns = [_compared(t, d) for t, d in zip(truths, detections, strict=True)]
    starts = np.cumsum([0, *(len(t.boxes) for t in truths)])
    owners = [column["owner"] + start for column, start in zip(columns, starts, strict=False)]
    found = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    found["owner"] = np.concatenate(owners)
    needed = np.concatenate([t.classes[~t.difficult & ~t.crowd] for t in truths])
    results = np.full((len(thresholds), class_count), np.nan)
    for number in range(class_count):
        total = int(np.sum(needed == number))
        if not total:
            continue
        chosen = found["class"] == number
        order = np.argsort(-found["score"][chosen], kind="stable")
        ranked = {name: values[chosen][order] for name, values in found.items()}
        for row, threshold in enumerate(thresholds):
            results[row, number] = _precision(ranked, threshold, total, form)
    return results


def voc_figures(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    class_count: int,
    form: str = "points",
) -> dict[str, float | None]:
    """Returns `AP` (the mean over `THRESHOLDS`), `AP50` and `AP75` in percent, over all classes.

    Args:
        truths: as for `voc_average_precision`.
        detections: as for `voc_average_precision`.
        class_count: as for `voc_average_precision`; classes without a box are left out.
        form: as for `voc_average_precision`.

    Raises:
        UserError: there is no box that must be found.
    """
    return voc_figures_by_class(truths, detections, class_count, form)[0]


def voc_figures_by_class(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    class_count: int,
    form: str = "points",
) -> tuple[dict[str, float | None], list[dict[str, float | None]]]:
    """Returns what `voc_figures` does, and the same of each class: None where it has no box.

    Args:
        truths: as for `voc_figures`.
        detections: as for `voc_figures`.
        class_count: as for `voc_figures`.
        form: as for `voc_figures`.

    Raises:
        UserError: there is no box that must be found.
    """
    check_scorable(truths)
    found = 100 * voc_average_precision(truths, detections, class_count, form)
    return _named(np.nanmean(found, axis=1)), [_named(of_class) for of_class in found.T]


def _named(found: np.ndarray) -> dict[str, float | None]:
    """Returns figures by name from the average precision at each threshold."""
    at = THRESHOLDS.index
    values = {"AP": found.mean(), "AP50": found[at(0.5)], "AP75": found[at(0.75)]}
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}


def check_scorable(truths: Sequence[Truth]) -> None:
    """Refuses images without a box that must be found.

    Args:
        truths: the boxes of each image.

    Raises:
        UserError: there is none.
    """
    if not any((~truth.difficult & ~truth.crowd).any() for truth in truths):
        raise UserError(
            f"{len(truths)} images have no box that must be found; allowed: at least one box that "
            "is neither difficult nor a crowd."
        )


def _compared(truth: Truth, found: Detections) -> dict[str, np.ndarray]:
    """Returns what matters of each detection of an image, whatever the threshold."""
    boxes, others = (np.asarray(one.boxes, np.float64).reshape(-1, 4) for one in (found, truth))
    corner = np.maximum(boxes[:, None, :2], others[:, :2])
    sides = np.maximum(np.minimum(boxes[:, None, 2:], others[:, 2:]) - corner, 0)
    common, areas = sides[..., 0] * sides[..., 1], _areas(boxes)[:, None]
    same = np.asarray(found.classes)[:, None] == truth.classes
    overlap = np.where(same & ~truth.crowd, _share(common, areas + _areas(others) - common), -1)
    # A last column, of no box, so that there always is a best one.
    overlap = np.concatenate([overlap, np.full((len(boxes), 1), -1.0)], axis=1)
    best = overlap.argmax(axis=1)
    inside = np.where(same & truth.crowd, _share(common, areas), 0)
    return {
        "score": np.asarray(found.scores, np.float64), "class": np.asarray(found.classes),
        "overlap": overlap.max(axis=1), "owner": best,
        "difficult": np.append(truth.difficult, False)[best],
        "crowd": inside.max(axis=1, initial=0),
    }  # fmt: skip


def _precision(ranked: dict[str, np.ndarray], threshold: float, total: int, form: str) -> float:
    near = ranked["overlap"] > threshold
    candidates = np.flatnonzero(near & ~ranked["difficult"])
    right = np.zeros(len(near), bool)
    right[candidates[np.unique(ranked["owner"][candidates], return_index=True)[1]]] = True
    excused = (near & ranked["difficult"]) | (ranked["crowd"] > threshold)
    wrong = ~right & ~excused
    hits = np.cumsum(right)
    recall, precision = hits / total, _share(hits, hits + np.cumsum(wrong))
    # The best precision at this recall or a higher one.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if form == "points":
        places = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1))
        return float(envelope[places].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope[:-1]))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
