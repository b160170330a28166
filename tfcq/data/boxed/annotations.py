"""A COCO JSON read and checked: the boxes of every image, by place."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from tfcq.errors import UserError
from tfcq.files import read_text
from tfcq.parsing import check_form, parse_json

_FORM = {
    "images": [{"id": float, "file_name": str, "width": float, "height": float}],
    "categories": [{"id": float, "name": str}],
    "annotations": [
        {
            "id": float, "image_id": float, "category_id": float, "bbox": [float],
            "iscrowd": float, "area": float,
        }
    ],
}  # fmt: skip
_NEEDED = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "bbox"),
}


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a COCO JSON holds.

    Attributes:
        names: names of the classes, in the order of their ids.
        category_ids: id of each class.
        image_ids: id of each image.
        files: name of each image.
        shapes: height and width of each image.
        boxes: of each image, float32 [N, 4], in our order.
        classes: of each image, int64 [N].
        crowd: of each image, bool [N].
        area: of each image, float32 [N].
        segmentations: of each image, as COCO writes them; None where one box has none.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: tuple[int, ...]
    files: list[str]
    shapes: list[tuple[int, int]]
    boxes: list[np.ndarray]
    classes: list[np.ndarray]
    crowd: list[np.ndarray]
    area: list[np.ndarray]
    segmentations: list[list[Any]] | None

    def subset(self, chosen: np.ndarray) -> "Annotations":
        """Returns those of chosen images.

        Args:
            chosen: whether each is, bool [images].
        """
        names = ("image_ids", "files", "shapes", "boxes", "classes", "crowd", "area")
        columns = {name: getattr(self, name) for name in names}
        if self.segmentations is not None:
            columns["segmentations"] = self.segmentations
        kept = {
            name: type(column)(one for one, keep in zip(column, chosen, strict=True) if keep)
            for name, column in columns.items()
        }
        return dataclasses.replace(self, **kept)

    def learned(self) -> list[np.ndarray]:
        """Returns the classes of the boxes of each image that are no crowds."""
        return [c[~crowd] for c, crowd in zip(self.classes, self.crowd, strict=True)]

    def counts(self) -> np.ndarray:
        """Returns the boxes of each image that are no crowds, int [images]."""
        return np.array([np.sum(~crowd) for crowd in self.crowd], int)

    def class_counts(self) -> np.ndarray:
        """Returns the boxes of each class that are no crowds, int [classes]."""
        learned = np.concatenate([np.zeros(0, int), *self.learned()])
        return np.bincount(learned, minlength=len(self.names))


def read_annotations(path: str, strict: bool) -> Annotations:
    """Reads a COCO JSON.

    Args:
        path: the file.
        strict: whether a box without an area inside its image is an error; else it is named in a
            warning and left out.

    Raises:
        UserError: it cannot be read, is no COCO JSON, holds no boxes, names an image or a category
            that it does not list, (strict) a box is without area, or most boxes reach beyond their
            image.
    """
    found = parse_json(read_text(path), path)
    _check(found, path)
    categories = sorted(found["categories"], key=lambda category: category["id"])
    class_of = _places(categories, path, "categories")
    _places(categories, path, "categories", "name")
    image_of = _places(found["images"], path, "images")
    shapes = [(int(image["height"]), int(image["width"])) for image in found["images"]]
    rows: list[list[tuple]] = [[] for _ in shapes]
    faults, cut = [], 0
    for number, one in enumerate(found["annotations"], 1):
        name = f"Annotation {one.get('id', f'in place {number}')} of {path}"
        for key, known in (("image_id", image_of), ("category_id", class_of)):
            if one[key] not in known:
                raise UserError(f"{name} has {key} {one[key]}; allowed: one that the file lists.")
        place = image_of[one["image_id"]]
        if len(one["bbox"]) != 4:
            raise UserError(f"{name} has a box of {len(one['bbox'])} numbers; allowed: 4.")
        x, y, width, height = map(float, one["bbox"])
        high, wide = shapes[place]
        inside = min(y + height, high) - max(y, 0), min(x + width, wide) - max(x, 0)
        if min(width, height, *inside) <= 0:
            file = found["images"][place]["file_name"]
            faults.append(f"{name} (image {file!r}) is a box of {width:g} x {height:g} pixels")
            continue
        cut += min(y, x, high - y - height, wide - x - width) < -1
        box = (max(y, 0.0), max(x, 0.0), min(y + height, high), min(x + width, wide))
        area = float(one.get("area", width * height))
        crowd, outline = bool(one.get("iscrowd", 0)), one.get("segmentation")
        rows[place].append((box, class_of[one["category_id"]], crowd, area, outline))
    _tell(faults, cut, len(found["annotations"]), path, strict)
    columns = [tuple(zip(*of_image, strict=True)) or ((),) * 5 for of_image in rows]
    outlines = [list(column[4]) for column in columns]
    return Annotations(
        names=tuple(category["name"] for category in categories),
        category_ids=tuple(category["id"] for category in categories),
        image_ids=tuple(image["id"] for image in found["images"]),
        files=[image["file_name"] for image in found["images"]],
        shapes=shapes,
        boxes=[np.array(column[0], np.float32).reshape(-1, 4) for column in columns],
        classes=[np.array(column[1], np.int64) for column in columns],
        crowd=[np.array(column[2], bool) for column in columns],
        area=[np.array(column[3], np.float32) for column in columns],
        segmentations=outlines if all(all(of_image) for of_image in outlines) else None,
    )


def decoded_masks(outlines: Sequence[Any], height: int, width: int) -> np.ndarray:
    """Returns what COCO's outlines enclose.

    Args:
        outlines: of each object, polygons or run lengths.
        height: of the image.
        width: of the image.

    Returns:
        uint8 [N, height, width].

    Raises:
        UserError: pycocotools is not installed, or an outline is none that it reads.
    """
    coder = mask_coder()
    made = np.zeros((len(outlines), height, width), np.uint8)
    for mask, outline in zip(made, outlines, strict=True):
        try:
            # Polygons, or run lengths as numbers; else they are packed already.
            packed = isinstance(outline, dict) and isinstance(outline["counts"], str)
            runs = outline if packed else coder.frPyObjects(outline, height, width)
            mask[:] = coder.decode(coder.merge(runs) if isinstance(runs, list) else runs)
        except Exception as error:
            # pycocotools raises whatever it stumbles over.
            raise UserError(
                f"A segmentation begins with {str(outline)[:60]!r}; allowed: "
                "polygons of 6 numbers and more, or run lengths of the image's size."
            ) from error
    return made


def mask_coder() -> Any:
    """Returns pycocotools' masks.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            "Masks of a COCO JSON need pycocotools; install it with `pip install pycocotools`."
        ) from error
    return mask


def _check(found: Any, path: str) -> None:
    check_form(found, _FORM, path)
    for kind, names in _NEEDED.items():
        if not found.get(kind):
            what = "boxes" if kind == "annotations" else kind
            raise UserError(
                f"{path} holds no {what}; allowed: a COCO JSON with {', '.join(_NEEDED)}."
            )
        for number, one in enumerate(found[kind], 1):
            if missing := [name for name in names if name not in one]:
                raise UserError(f"{path}, {kind!r}, {number} has no {missing[0]!r}.")


def _places(listed: list[dict], path: str, kind: str, key: str = "id") -> dict[Any, int]:
    places = {one[key]: place for place, one in enumerate(listed)}
    if len(places) < len(listed):
        twice = next(one[key] for place, one in enumerate(listed) if places[one[key]] != place)
        raise UserError(
            f"{path} lists {key} {twice!r} twice in {kind!r}; allowed: one of its own for each."
        )
    return places


def _tell(faults: list[str], cut: int, count: int, path: str, strict: bool) -> None:
    reach = f"{cut} of {count} boxes of {path} reach beyond their image"
    form = "COCO's boxes are x, y, width, height"
    if 2 * cut > count:
        raise UserError(f"{reach}; allowed: at most half of them, as {form}, not x1, y1, x2, y2.")
    if faults and strict:
        raise UserError(
            f"{faults[0]} ({len(faults)} such); allowed: boxes with an area inside their image."
        )
    for fault in faults:
        logging.warning("%s and is left out: it has no area inside its image.", fault)
    if cut:
        logging.warning("%s and are cut there; %s.", reach, form)
