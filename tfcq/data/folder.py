"""Images in a folder: one sub-folder per class, or none for pre-training without labels."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
import tensorflow as tf
from absl import logging

from tfcq.data.folder_layout import EXTENSIONS, image_files, split_roots, visible_folders
from tfcq.data.image_files import (
    READ,
    ImageFile,
    ImageReader,
    UnreadableImageError,
    depth_of,
    inspected,
    read_image,
    shown_name,
)
from tfcq.data.split import Record, Split, missing_split
from tfcq.errors import UserError
from tfcq.settings import datasets

# Decoding all of more files would take minutes, so that some of them stand for all.
DECODED_ALL, DECODED_OF_MORE = 20_000, 10_000
# Threads are given files by the hundred: a task for each costs as much as a small image.
_TOGETHER = 100


@dataclasses.dataclass(frozen=True)
class _Listing:
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...] | None


class FolderSource:
    """Image files below a folder.

    `PATH/train` and `PATH/test` (or `val`) are the splits where their content says so, see
    `tfcq.data.folder_layout`; otherwise PATH itself is the training split. Each split holds one
    sub-folder per class (labels in the sorted order of their names), or images directly. Every
    image is decoded once when its split is first asked for, so that a broken file shows then and
    not hours later; of more than 20,000 files 10,000 are, and each of the others is held against
    what these hold when it is used.

    Grey-scale images among colour images are read as colour, transparent pixels on a background,
    16-bit values at the depth that the training images have; how many is logged as a warning, as
    are files that are not images. See `tfcq.data.image_files`.

    Args:
        path: the folder.
        strict: whether a broken file is an error; else it is named in a warning and skipped.
        background: red, green and blue behind transparent pixels, 0 to 255.

    Raises:
        UserError: the folder does not exist, a class folder is empty, there are no images, or the
            classes of both splits differ.
    """

    def __init__(
        self,
        path: str,
        strict: bool = False,
        background: tuple[int, int, int] = datasets.BACKGROUND,
    ):
        datasets.check_dataset_name(f"{datasets.FOLDER_PREFIX}{path}")
        self.name = f"{datasets.FOLDER_PREFIX}{path}"
        self._strict, self._background = strict, background
        self._depth: int | None = None
        self._path = path
        roots = split_roots(path)
        self._listings = {name: _list(root) for name, root in roots.items()}
        self._opened: dict[str, Split] = {}
        self.splits = tuple(self._listings)
        classes = {name: listing.class_names for name, listing in self._listings.items()}
        if len(set(classes.values())) > 1:
            only = set(classes["train"] or ()) ^ set(classes["test"] or ())
            raise UserError(
                f"The classes of {roots['train']!r} and {roots['test']!r} differ in"
                f" {', '.join(sorted(only))}; allowed: the same class folders in both."
            )

    def split(self, name: str) -> Split:
        """Returns the split `"train"` or `"test"`, after decoding its images once.

        Raises:
            UserError: there is no such split, no image can be read, or (strict) a file is broken.
        """
        if name not in self._listings:
            raise missing_split(self.name, name, self.splits)
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _open(self, name: str) -> Split:
        listing = self._listings[name]
        files, broken = self._inspected(name, listing.paths)
        # Files are listed class by class; "the first n images" must be a sample of all classes.
        order = np.delete(np.arange(len(listing.paths)), broken)
        order = np.random.default_rng(0).permutation(order).tolist()
        found = list(files.values())
        _tell_kinds(found, self._background)
        paths = [os.fsencode(listing.paths[i]) for i in order]
        shape, depth = _common_shape(found), self._depth_of(name, found)
        read = functools.partial(
            read_image, channels=shape[2], background=self._background, depth=depth
        )
        sizes = [files[i].shape[:2] if i in files else None for i in order]
        reader = ImageReader(self.name, paths, sizes, shape, read, self._strict)
        labels = np.array(listing.labels, np.int64)[order]
        # The reader has the paths, which a million records would hold several times over.
        columns = {"index": np.arange(len(paths)), "label": labels}
        folder = os.path.join(self._path, "")

        return Split(
            name=name,
            size=len(paths),
            image_shape=shape,
            class_names=listing.class_names and tuple(map(shown_name, listing.class_names)),
            records=tf.data.Dataset.from_tensor_slices(columns),
            decode=_decoding(reader, shape[2]),
            record_bytes=sum(column.itemsize for column in columns.values()),
            keeping=lambda: _decoding(functools.cache(reader), shape[2]),
            names=tuple(listing.paths[i].removeprefix(folder) for i in order),
        )

    def _inspected(self, name: str, paths: Sequence[str]) -> tuple[dict[int, ImageFile], list[int]]:
        """Returns what files that can be read hold, by their place, and the places of others."""
        places = np.arange(len(paths))
        if len(paths) > DECODED_ALL:
            places = np.sort(np.random.default_rng(0).permutation(places)[:DECODED_OF_MORE])
            logging.warning(
                "%s: %d of %d image files of the %s split are decoded at the start; each of the "
                "others is checked when it is used.", self.name, len(places), len(paths), name,
            )  # fmt: skip
        parts = [
            [os.fsencode(paths[i]) for i in places[start : start + _TOGETHER]]
            for start in range(0, len(places), _TOGETHER)
        ]
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = [one for part in pool.map(_files_or_faults, parts) for one in part]
        found = dict(zip(places.tolist(), checked, strict=True))
        broken = {i: fault for i, fault in found.items() if isinstance(fault, str)}
        for i, fault in broken.items():
            path = shown_name(paths[i])
            if self._strict:
                raise UserError(
                    f"{len(broken)} broken image file(s), the first {path!r} ({fault});"
                    f" allowed: readable {READ} files; without --strict_data they are skipped."
                )
            logging.warning("Broken image file %r is skipped (%s).", path, fault)
        if broken:
            logging.warning("%d of %d image files skipped.", len(broken), len(checked))
        files = {i: one for i, one in found.items() if not isinstance(one, str)}
        if not files:
            raise UserError(f"No image of {self.name!r} can be read; allowed: {READ} files.")
        return files, list(broken)

    def _depth_of(self, name: str, files: list[ImageFile]) -> int:
        """Returns how many bits 16-bit values have: as the training images tell, for all splits."""
        deep = [one.greatest for one in files if one.greatest]
        if not deep:
            return 8
        if name != "train":
            self.split("train")
        if self._depth is None:
            self._depth = depth_of(max(deep))
            logging.warning(
                "%s: %d of %d images have 16 bits a channel; their values reach %d and are read as "
                "of %d bits.", self.name, len(deep), len(files), max(deep), self._depth,
            )  # fmt: skip
        if max(deep) >= 2**self._depth:
            raise UserError(
                f"16-bit images of the {name} split of {self.name!r} reach {max(deep)}, those of "
                f"the training split {2**self._depth - 1} at most; allowed: one depth for both."
            )
        return self._depth


def _list(root: str) -> _Listing:
    folders = visible_folders(root)
    direct, others = image_files(root)
    del others["folders"]
    if folders and direct:
        first = os.path.basename(folders[0])
        raise UserError(
            f"Folder {root!r} holds images beside class folders ({first!r}, ...);"
            " allowed: one sub-folder per class, or images only."
        )
    paths, labels = list(direct), [-1] * len(direct)
    for label, folder in enumerate(folders):
        inside, other = image_files(folder)
        others.update(other)
        if not inside:
            deeper = " but in sub-folders, which are not read" if other["folders"] else ""
            raise UserError(
                f"Class folder {folder!r} holds no images{deeper};"
                f" allowed: at least one of {', '.join(EXTENSIONS)}."
            )
        paths += inside
        labels += [label] * len(inside)
    if not paths:
        raise UserError(
            f"Folder {root!r} holds no images; allowed: files of {', '.join(EXTENSIONS)},"
            " in one sub-folder per class or directly."
        )
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        logging.warning("%s: entries that are not images are not used: %s.", root, kinds)
    class_names = tuple(map(os.path.basename, folders)) or None
    return _Listing(tuple(paths), tuple(labels), class_names)


def _decoding(read: Callable[[int], np.ndarray], channels: int) -> Callable[[Record], Record]:
    """Returns what gives a record, or a batch of them, its image by its index."""

    def pixels(index: np.ndarray) -> np.ndarray:
        return np.stack([read(i) for i in index.tolist()]) if index.ndim else read(int(index))

    def decode(record: Record) -> Record:
        index = record["index"]
        image = tf.numpy_function(pixels, [index], tf.uint8)
        return {**record, "image": tf.ensure_shape(image, [*index.shape, None, None, channels])}

    return decode


def _files_or_faults(paths: list[bytes]) -> list[ImageFile | str]:
    return [_file_or_fault(path) for path in paths]


def _file_or_fault(path: bytes) -> ImageFile | str:
    try:
        return inspected(path)
    except UnreadableImageError as error:
        return str(error)


def _tell_kinds(files: list[ImageFile], background: tuple[int, int, int]) -> None:
    """Tells how many images are read as something else than they are."""
    grey = sum(one.shape[2] < 3 for one in files)
    if 0 < grey < len(files):
        logging.warning("%d of %d images are grey-scale and read as colour.", grey, len(files))
    if transparent := sum(one.transparent for one in files):
        logging.warning(
            "%d of %d images have transparent pixels, seen on red, green and blue of %s.",
            transparent, len(files), ", ".join(map(str, background)),
        )  # fmt: skip
    if several := sum(one.several for one in files):
        logging.warning(
            "%d of %d images hold several frames; the first is read.", several, len(files)
        )


def _common_shape(files: list[ImageFile]) -> tuple[int | None, int | None, int]:
    channels = 1 if all(one.shape[2] < 3 for one in files) else 3
    sizes = {one.shape[:2] for one in files}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, channels
