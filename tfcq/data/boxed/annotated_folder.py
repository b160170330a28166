"""Which images and boxes a folder with a COCO JSON holds, known without TensorFlow."""

import glob
import os
from concurrent import futures

import numpy as np
from absl import logging
from PIL import Image

from tfcq.data.boxed.annotations import Annotations, mask_coder, read_annotations
from tfcq.data.boxed.usable import check_seen, held_out
from tfcq.data.folder_layout import SPLIT_OF, visible_folders
from tfcq.errors import UserError
from tfcq.settings import datasets

_FILE = "annotations.json"
_ALLOWED = (
    f"{_FILE} beside the images, in train and test (or val) or alone, or instances_train*.json and "
    "instances_val*.json beside folders of images"
)
_GREY = ("1", "L", "LA", "I", "I;16")


class AnnotatedFolder:
    """Images of a folder with the boxes, and perhaps the masks, of a COCO JSON, by split.

    `PATH/train/annotations.json` and `PATH/test/...` (or `val`) are the splits, or
    `PATH/annotations.json` alone is the training split; of COCO's own layout it is
    `instances_train*.json` and `instances_val*.json` in `PATH` or `PATH/annotations`. Images lie
    beside the JSON, in `images` beside it or, of COCO's layout, in the folder of the same name,
    such as `PATH/train2017`.

    Args:
        path: the folder.
        masks: whether masks are read, which needs pycocotools.
        strict: whether a box without area is an error; else it is named in a warning and left out.
        holdout: share of the training images that become the test split, above 0 and below 1;
            None for the folder's own test split.
        holdout_seed: another seed holds out others.

    Raises:
        UserError: there is no such folder, no such JSON, nothing to train on, or a test split
            although one is to be held out.
    """

    def __init__(
        self,
        path: str,
        masks: bool = False,
        strict: bool = True,
        holdout: float | None = None,
        holdout_seed: int = 0,
    ) -> None:
        self.name = f"{datasets.BOXES_PREFIX}{path}"
        self.masks, self._strict = masks, strict
        self._files = _annotation_files(path)
        self._holdout, self._seed = holdout, holdout_seed
        self._read: dict[str, Annotations] = {}
        self._images: dict[str, tuple[list[bytes], list[bool]]] = {}
        if masks:
            mask_coder()
        if holdout is not None:
            datasets.check_holdout(self.name, tuple(self._files), holdout)
            self._files["test"] = self._files["train"]
        self.splits = tuple(self._files)

    def annotations(self, name: str) -> Annotations:
        """Returns what the JSON of a split holds, its classes numbered as those of training.

        Args:
            name: `"train"` or `"test"`.

        Raises:
            UserError: it cannot be used, there are no masks although they are asked for, or a class
                of the test split has no box in the training split.
        """
        if name not in self._read:
            found = read_annotations(self._files[name], self._strict)
            if self.masks and found.segmentations is None:
                raise UserError(
                    f"{self._files[name]} has boxes without a segmentation; allowed: one of each "
                    "box, or a detector without masks."
                )
            if self._holdout is not None:
                tested = held_out(found.learned(), found.files, self._holdout, self._seed)
                self._read = {"train": found.subset(~tested), "test": found.subset(tested)}
            elif name == "train":
                self._read[name] = found
            else:
                train = self.annotations("train")
                found = _renumbered(found, train.names, self.name)
                check_seen(self.name, train.names, train.class_counts(), found.class_counts())
                self._read[name] = found
        return self._read[name]

    def paths(self, name: str) -> list[bytes]:
        """Returns the files of the images of a split, after looking at the size of each.

        Args:
            name: `"train"` or `"test"`.

        Raises:
            UserError: an image is missing, cannot be read, or has another size than the JSON says.
        """
        return self._inspected(name)[0]

    def is_grey(self) -> bool:
        """Whether no image of any split has colour."""
        return all(self.grey(name) == len(self.paths(name)) for name in self.splits)

    def grey(self, name: str) -> int:
        """Returns how many images of a split are grey.

        Args:
            name: `"train"` or `"test"`.
        """
        return sum(self._inspected(name)[1])

    def size(self) -> tuple[int | None, int | None]:
        """Returns the height and width of the training images; None where they have several."""
        return common_size(self.annotations("train").shapes)

    def _inspected(self, name: str) -> tuple[list[bytes], list[bool]]:
        if name not in self._images:
            self._images[name] = _inspected(self._files[name], self.annotations(name))
        return self._images[name]


def common_size(shapes: list[tuple[int, int]]) -> tuple[int | None, int | None]:
    """Returns the height and width that all images have; None where they have several.

    Args:
        shapes: height and width of each.
    """
    return shapes[0] if len(set(shapes)) == 1 else (None, None)


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


def _inspected(file: str, found: Annotations) -> tuple[list[bytes], list[bool]]:
    """Returns the files of the images, and whether each is grey, after looking at its size.

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
    for name, one, shape in zip(found.files, checked, found.shapes, strict=True):
        if isinstance(one, str) or one[:2] != shape:
            fault = one if isinstance(one, str) else f"it is {one[0]} x {one[1]} pixels"
            raise UserError(
                f"Image {name!r} of {file} cannot be used: {fault}; allowed: an image of "
                f"{shape[0]} x {shape[1]} pixels, as the file says."
            )
    return paths, [bool(one[2]) for one in checked]


def _size_or_fault(path: bytes) -> tuple[int, int, bool] | str:
    """Returns height and width of an image, upright, and whether it is grey, undecoded."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned, grey = image.getexif().get(274, 1) >= 5, image.mode in _GREY
    except Exception as error:
        # Of damaged files Pillow raises whatever it stumbles over.
        return getattr(error, "strerror", None) or "it is no image"
    return (width, height, grey) if turned else (height, width, grey)


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
