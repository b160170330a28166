"""Scenes composed of the images of a labelled data set, at random places and sizes.

They are no photographs: items on black, each known to the pixel, for trying detectors where no
annotated data are at hand. A scene is a function of (seed, split, index).
"""

import dataclasses

import numpy as np
import tensorflow as tf
from PIL import Image

from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.data.split import Record, Source, Split, missing_split
from tfcq.errors import UserError
from tfcq.settings.generator import GENERATOR

# Brighter pixels are the item, the others its background.
OUTLINE = 32
# Items of a scene, at least one of which always fits.
_MOST = 6
# Length of an item's longer side, as shares of the scene's.
_SMALLEST, _LARGEST = 1 / 6, 1 / 2
# Of each item at least this share stays visible; what does not fit after so many tries is left out.
_VISIBLE, _TRIES = 0.75, 8
# Draws of an item: which, how large, and two for each place that is tried.
_DRAWS = 2 + 2 * _TRIES
# Items are held in memory.
_HELD_BYTES = 10**9
_COUNTS = {"train": 4000, "test": 500}


@dataclasses.dataclass(frozen=True)
class _Items:
    images: np.ndarray
    labels: np.ndarray


class ScenesSource:
    """Scenes of one to six items; training scenes of training items, test scenes of test items.

    An item is what is brighter than `OUTLINE`, cut out along its outline, which also gives its
    mask; later items cover earlier ones.

    Args:
        items: gives the images, all of one shape, and their classes.
        name: name of this data set.
        side: height and width of a scene, in pixels.
        seed: another seed composes other scenes.
        counts: scenes of each split; 4000 and 500 by default.

    Raises:
        UserError: items without labels or of several shapes, or too many of them.
    """

    def __init__(
        self,
        items: Source,
        name: str,
        side: int = 96,
        seed: int = 0,
        counts: dict[str, int] | None = None,
    ) -> None:
        if side < 16:
            raise UserError(f"Scenes of {side} pixels; allowed: 16 and more.")
        self.name, self._side, self._seed = name, side, seed
        self._items, self._counts = items, counts or _COUNTS
        self.splits = tuple(name for name in self._counts if name in items.splits)

    def split(self, name: str) -> BoxedSplit:
        """Returns the split `"train"` or `"test"`.

        Raises:
            UserError: there is none of that name, or its items cannot be used.
        """
        if name not in self.splits:
            raise missing_split(self.name, name, self.splits)
        split = self._items.split(name)
        items, side, channels = _items(split, self._items.name), self._side, split.image_shape[2]
        seed = [self._seed, list(_COUNTS).index(name)]

        def made(draws: np.ndarray) -> tuple[np.ndarray, ...]:
            return composed(draws, items.images, items.labels, side)

        def decode(record: Record) -> Record:
            of_scene = tf.random.experimental.stateless_fold_in(
                tf.constant(seed, tf.int64), record["index"], alg=GENERATOR
            )
            draws = tf.random.stateless_uniform([1 + _MOST * _DRAWS], of_scene, alg=GENERATOR)
            image, boxes, classes, masks = tf.numpy_function(
                made, [draws], [tf.uint8, tf.float32, tf.int64, tf.uint8]
            )
            boxes = tf.ensure_shape(boxes, [None, 4])
            no = tf.zeros(tf.shape(boxes)[:1], tf.bool)
            masks = tf.ensure_shape(masks, [None, side, side])
            return {
                "index": record["index"], "image": tf.ensure_shape(image, [side, side, channels]),
                "boxes": boxes, "classes": tf.ensure_shape(classes, [None]),
                "difficult": no, "crowd": no,
                "area": tf.reduce_sum(tf.cast(masks, tf.float32), axis=[1, 2]), "masks": masks,
            }  # fmt: skip

        return BoxedSplit(
            name=name,
            size=self._counts[name],
            image_shape=(side, side, channels),
            class_names=split.class_names,
            records=tf.data.Dataset.range(self._counts[name]).map(lambda index: {"index": index}),
            decode=decode,
            record_bytes=8,
            most_boxes=_MOST,
            masks=True,
        )


def composed(
    draws: np.ndarray, images: np.ndarray, labels: np.ndarray, side: int
) -> tuple[np.ndarray, ...]:
    """Returns a scene that is a function of its draws.

    Args:
        draws: float in [0, 1): how many items, then of each which it is, its size and places.
        images: items, uint8 [N, H, W, C], each with a pixel brighter than `OUTLINE`.
        labels: their classes, int64 [N].
        side: height and width of the scene.

    Returns:
        image uint8 [side, side, C], boxes float32 [M, 4] around what is visible, classes int64
        [M], masks uint8 [M, side, side] of what is visible.
    """
    scene = np.zeros((side, side, images.shape[-1]), np.uint8)
    masks: list[np.ndarray] = []
    areas: list[int] = []
    classes: list[int] = []
    for row in draws[1:].reshape(_MOST, _DRAWS)[: 1 + int(draws[0] * _MOST)]:
        place = int(row[0] * len(images))
        longer = side * (_SMALLEST + row[1] * (_LARGEST - _SMALLEST))
        item = _resized(_cut_out(images[place]), longer)
        outline = item.max(axis=-1) > OUTLINE
        height, width = outline.shape
        for y, x in row[2:].reshape(_TRIES, 2):
            top, left = int(y * (side - height + 1)), int(x * (side - width + 1))
            part = slice(top, top + height), slice(left, left + width)
            new = np.zeros((side, side), bool)
            new[part] = outline
            shares = [np.sum(mask & ~new) / area for mask, area in zip(masks, areas, strict=True)]
            if outline.any() and all(share >= _VISIBLE for share in shares):
                scene[part][outline] = item[outline]
                masks = [*(mask & ~new for mask in masks), new]
                areas.append(int(new.sum()))
                classes.append(int(labels[place]))
                break
    # Nothing is left of items whose few bright pixels vanish as they are made smaller.
    boxes = np.array([_around(mask) for mask in masks], np.float32).reshape(-1, 4)
    visible = np.array(masks, np.uint8).reshape(-1, side, side)
    return scene, boxes, np.array(classes, np.int64), visible


def _items(split: Split, source: str) -> _Items:
    """Returns the images of a split that have an outline, and their classes."""
    height, width, channels = split.image_shape
    if split.class_names is None or height is None or width is None:
        raise UserError(
            f"Scenes cannot be composed of {source!r}: its images have "
            f"{'no labels' if split.class_names is None else 'several sizes'}; allowed: labelled "
            "images of one size, such as digits or fashion_mnist."
        )
    held = split.size * height * width * channels
    if held > _HELD_BYTES:
        raise UserError(
            f"Scenes of {source!r} would hold {held // 10**6} MB of images; allowed: up to "
            f"{_HELD_BYTES // 10**6} MB, such as digits or fashion_mnist."
        )
    records = split.records.map(split.decode, tf.data.AUTOTUNE).batch(256).as_numpy_iterator()
    batches = [(batch["image"], batch["label"]) for batch in records]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    there = (images > OUTLINE).any(axis=(1, 2, 3))
    if not there.any():
        raise UserError(
            f"No image of {source!r} has a pixel brighter than {OUTLINE}; allowed: bright items "
            "on a dark background."
        )
    return _Items(images[there], labels[there].astype(np.int64))


def _around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the smallest box around a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _cut_out(image: np.ndarray) -> np.ndarray:
    top, left, bottom, right = _around(image.max(axis=-1) > OUTLINE)
    return image[top:bottom, left:right]


def _resized(image: np.ndarray, longer: float) -> np.ndarray:
    """Returns an image with its longer side at a length."""
    scale = longer / max(image.shape[:2])
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    bands = [
        np.asarray(Image.fromarray(band).resize((width, height), Image.Resampling.BILINEAR))
        for band in np.moveaxis(image, -1, 0)
    ]
    return np.stack(bands, axis=-1)
