"""Images in a folder: one sub-folder per class, or none for pre-training without labels."""

import collections
import dataclasses
import os
from concurrent import futures

import numpy as np
import tensorflow as tf
from absl import logging

from tfcq.data.folder_layout import EXTENSIONS, image_files, split_roots, visible_folders
from tfcq.data.split import Record, Split, missing_split
from tfcq.errors import UserError
from tfcq.settings import datasets


@dataclasses.dataclass(frozen=True)
class _Listing:
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...] | None


class FolderSource:
    """JPEG and PNG files below a folder.

    `PATH/train` and `PATH/test` (or `val`) are the splits where their content says so, see
    `tfcq.data.folder_layout`; otherwise PATH itself is the training split. Each split holds one
    sub-folder per class (labels in the sorted order of their names), or images directly. Every
    image is decoded once when its split is first asked for, so that a broken file shows then and
    not hours later.

    Grey-scale images among colour images are read as colour, and an alpha channel is dropped; how
    many is logged as a warning, as are files that are not images.

    Args:
        path: the folder.
        strict: whether a broken file is an error; else it is named in a warning and skipped.

    Raises:
        UserError: the folder does not exist, a class folder is empty, there are no images, or the
            classes of both splits differ.
    """

    def __init__(self, path: str, strict: bool = False):
        datasets.check_dataset_name(f"{datasets.FOLDER_PREFIX}{path}")
        self.name = f"{datasets.FOLDER_PREFIX}{path}"
        self._strict = strict
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
        """Returns the split `"train"` or `"test"`, after decoding each of its images once.

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
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = list(pool.map(_shape_or_fault, listing.paths))
        broken = [(p, c) for p, c in zip(listing.paths, checked, strict=True) if isinstance(c, str)]
        for path, fault in broken:
            if self._strict:
                raise UserError(
                    f"{len(broken)} broken image file(s), the first {path!r} ({fault});"
                    " allowed: readable JPEG or PNG files; without --strict_data they are skipped."
                )
            logging.warning("Broken image file %r is skipped (%s).", path, fault)
        if broken:
            logging.warning("%d of %d image files skipped.", len(broken), len(checked))
        shapes = {i: found for i, found in enumerate(checked) if not isinstance(found, str)}
        kept = list(shapes)
        if not kept:
            raise UserError(f"No image of {self.name!r} can be read; allowed: JPEG or PNG files.")
        # Files are listed class by class; "the first n images" must be a sample of all classes.
        kept = [kept[i] for i in np.random.default_rng(0).permutation(len(kept))]
        shape = _common_shape([shapes[i] for i in kept])
        paths = np.array([listing.paths[i] for i in kept])
        labels = np.array([listing.labels[i] for i in kept], np.int64)
        columns = {"index": np.arange(len(kept)), "image": paths, "label": labels}

        def decode(record: Record) -> Record:
            return {**record, "image": _read(record["image"], shape[2])}

        return Split(
            name=name,
            size=len(kept),
            image_shape=shape,
            class_names=listing.class_names,
            records=tf.data.Dataset.from_tensor_slices(columns),
            decode=decode,
            record_bytes=paths.itemsize,
            names=tuple(os.path.relpath(path, self._path) for path in paths),
        )


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


def _read(path: tf.Tensor | str, channels: int) -> tf.Tensor:
    # Content decides, not the name: files with the wrong one of the two extensions are common.
    return tf.io.decode_image(tf.io.read_file(path), channels, expand_animations=False)


def _shape_or_fault(path: str) -> tuple[int, int, int] | str:
    try:
        return tuple(_read(path, 0).shape)
    except tf.errors.OpError:
        # TensorFlow's own words name its kernels and formats that are not read here.
        return "no whole JPEG or PNG image"
    except OSError as error:
        return " ".join(str(error).split())


def _common_shape(shapes: list[tuple[int, int, int]]) -> tuple[int | None, int | None, int]:
    kinds = collections.Counter(shape[2] for shape in shapes)
    alpha = kinds[2] + kinds[4]
    if alpha:
        logging.warning("%d images have an alpha channel, which is dropped.", alpha)
    grey = kinds[1] + kinds[2]
    channels = 1 if grey == len(shapes) else 3
    if grey and channels == 3:
        logging.warning("%d of %d images are grey-scale and read as colour.", grey, len(shapes))
    sizes = {shape[:2] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, channels
