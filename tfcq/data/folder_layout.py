"""Which folders below a data set's are its splits, and which are its classes.

A name alone says nothing: there are classes called `train` and `valid`. Folders named like splits
are splits where they hold class folders, or where no folder beside them holds images.
"""

import collections
import os

from absl import logging

from tfcq.errors import UserError

EXTENSIONS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
)  # fmt: skip
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}
_ALLOWED = "train, test, val"
SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
# What systems and archives leave behind; other hidden names start with a dot.
_SYSTEM = (
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "desktop.ini", "lost+found",
    "system volume information", "thumbs.db",
)  # fmt: skip
# How files begin whose name does not say that they are images. Those of BMP and TIFF are left
# out: texts and raw files of cameras begin so, too.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


def split_roots(path: str) -> dict[str, str]:
    """Returns the folder of each split: `"train"`, and `"test"` where there is one.

    The test split is `test` or, where there is none with class folders like those of `train`, the
    validation split.

    Args:
        path: the folder of the data set; it is the training split where no folder is a split.

    Raises:
        UserError: splits stand beside other folders of images, two are the same split, or there
            is none to train on.
    """
    folders = visible_folders(path)
    named: dict[str, list[str]] = {}
    others, empty = [], []
    for folder in folders:
        split = SPLIT_OF.get(os.path.basename(folder).lower())
        if split is None:
            others += [folder] if _holds_images(folder) else []
        elif _holds_images(folder):
            named.setdefault(split, []).append(folder)
        else:
            empty.append(os.path.basename(folder))
    labelled = [f for found in named.values() for f in found if _has_classes(f)]
    if not named or (others and not labelled):
        return {"train": path}
    if others:
        raise UserError(
            f"Folder {path!r} holds {_base(labelled[0])} with class folders beside "
            f"{_base(others[0])} with images; allowed: splits alone ({_ALLOWED}), or class "
            f"folders alone. Move {_base(others[0])} elsewhere."
        )
    for split, found in named.items():
        if len(found) > 1:
            raise UserError(
                f"Folder {path!r} holds {_base(found[0])} and {_base(found[1])}, both the {split} "
                "split; allowed: one of them."
            )
    if "train" not in named:
        held = ", ".join(os.path.basename(found[0]) for found in named.values())
        raise UserError(
            f"Folder {path!r} holds {held} but no train; allowed: train alone or with another "
            f"split ({_ALLOWED}), or class folders."
        )
    for name in empty:
        logging.warning("%s: %s is not used: it holds no images.", path, name)
    return _chosen(path, {split: found[0] for split, found in named.items()})


def _base(path: str) -> str:
    return repr(os.path.basename(path))


def _chosen(path: str, roots: dict[str, str]) -> dict[str, str]:
    """Returns the training split and what evaluation tests on, and tells what is left out."""
    chosen = {"train": roots.pop("train")}
    labels = _has_classes(chosen["train"])
    for split in ("test", "validation"):
        if split in roots and "test" not in chosen and (_has_classes(roots[split]) or not labels):
            chosen["test"] = roots.pop(split)
    for root in roots.values():
        reason = (
            "it has no class folders" if labels and not _has_classes(root)
            else f"evaluation takes {os.path.basename(chosen['test'])}"
        )  # fmt: skip
        logging.warning("%s: %s is not used: %s.", path, os.path.basename(root), reason)
    if beside := image_files(path)[0]:
        logging.warning("%s: %d images beside the splits are not used.", path, len(beside))
    return chosen


def visible_folders(path: str) -> list[str]:
    """Returns the folders inside a folder in the order of their names, hidden ones left out.

    Args:
        path: the folder.
    """
    with os.scandir(path) as entries:
        return sorted(e.path for e in entries if e.is_dir() and not is_hidden(e.name))


def image_files(path: str) -> tuple[list[str], collections.Counter]:
    """Returns the images directly in a folder, and how many other entries there are by kind.

    Args:
        path: the folder.
    """
    images: list[str] = []
    others: collections.Counter = collections.Counter()
    with os.scandir(path) as entries:
        for entry in entries:
            kind = _other_kind(entry)
            if kind is None:
                images.append(entry.path)
            else:
                others[kind] += 1
    return sorted(images), others


def _other_kind(entry: os.DirEntry) -> str | None:
    """Returns what an entry is that is no image file; None for an image file."""
    if is_hidden(entry.name):
        return "hidden"
    if entry.is_dir():
        return "folders"
    kind = os.path.splitext(entry.name)[1].lower()
    if kind in EXTENSIONS or _begins_as_image(entry.path):
        return None
    return kind or "without extension"


def is_hidden(name: str) -> bool:
    """Whether an entry is hidden, or one that systems and archives leave behind.

    Args:
        name: its name without folders.
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")


def _has_classes(path: str, depth: int = 3) -> bool:
    return any(_holds_images(folder, depth - 1) for folder in visible_folders(path))


def _holds_images(path: str, depth: int = 3) -> bool:
    """Whether images lie in a folder or below it, not so deep that links lead round in circles."""
    with os.scandir(path) as entries:
        # The first image says it; a folder may hold a million.
        direct = any(_other_kind(entry) is None for entry in entries)
    return direct or (depth > 0 and _has_classes(path, depth))
