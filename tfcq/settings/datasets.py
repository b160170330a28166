"""The spelling of data set names."""

import contextlib
import difflib
import os
import re

from tfcq.errors import UserError
from tfcq.settings.fields import check_text

DIGITS = "digits"
BACKGROUND = (255, 255, 255)
_COLOURS = {"white": BACKGROUND, "black": (0, 0, 0), "grey": (128, 128, 128)}
FOLDER_PREFIX = "folder:"
# Of images with boxes.
BOXES_PREFIX, SCENES, SCENES_PREFIX = "boxes:", "scenes", "scenes:"
VOC, COCO = "voc", "coco"
# Those of TensorFlow Datasets that they are made of; their images have several sizes.
BOXED_TFDS = {VOC: ("voc/2007", "voc/2012"), COCO: ("coco/2017",)}
_BOXED = "scenes, scenes:DATASET, boxes:PATH, voc or coco"
_ALLOWED = "digits, folder:PATH or the name of a TensorFlow data set such as fashion_mnist"
# name, name/config, name:version or name/config:version
_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w.+-]+)?(:[\w.*-]+)?")


def is_tfds(name: str) -> bool:
    """Whether a data set is one of TensorFlow Datasets, by its spelling.

    Args:
        name: the data set.
    """
    return name != DIGITS and not name.startswith(FOLDER_PREFIX)


def check_dataset_name(dataset: str) -> None:
    """Checks what can be known of a data set's name without opening it.

    Whether a TensorFlow data set of that name exists is known only once TFDS is imported
    (`tfcq.data.sources.open_source` checks it).

    Args:
        dataset: `digits`, `folder:PATH` or a TFDS name.

    Raises:
        UserError: the folder is missing or not a folder, or the name cannot be one of the above.
    """
    check_text("dataset", dataset)
    if dataset.startswith(FOLDER_PREFIX):
        _check_folder(FOLDER_PREFIX, dataset.removeprefix(FOLDER_PREFIX))
    elif os.path.isdir(dataset) and ("/" in dataset or os.sep in dataset):
        raise UserError(
            f"Data set {dataset!r} is a folder; allowed: {_ALLOWED}."
            f" Did you mean '{FOLDER_PREFIX}{dataset}'?"
        )
    elif not _TFDS_NAME.fullmatch(dataset):
        near = difflib.get_close_matches(dataset[:100].lower(), [DIGITS], n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"Unknown data set {dataset!r}; allowed: {_ALLOWED}.{hint}")


def check_boxed_name(dataset: str, masks: bool = False) -> None:
    """Checks what can be known of the name of a data set with boxes without opening it.

    Args:
        dataset: `scenes`, `scenes:DATASET` with a labelled data set, `boxes:PATH`, `voc` or `coco`.
        masks: whether masks are needed.

    Raises:
        UserError: the folder is missing or not a folder, the labelled data set cannot be one, or
            it is the name of data without boxes or, where they are needed, without masks.
    """
    check_text("dataset", dataset)
    if masks and dataset in BOXED_TFDS:
        raise UserError(
            f"Data set {dataset!r} of TensorFlow Datasets has no masks; allowed: scenes, or "
            "boxes:PATH with a COCO JSON, such as COCO's own files."
        )
    if dataset.startswith(BOXES_PREFIX):
        _check_folder(BOXES_PREFIX, dataset.removeprefix(BOXES_PREFIX))
    elif dataset.startswith(SCENES_PREFIX):
        check_dataset_name(dataset.removeprefix(SCENES_PREFIX))
    elif dataset not in (SCENES, VOC, COCO):
        base, _, _ = dataset[:100].lower().partition(":")
        boxes = BOXES_PREFIX.removesuffix(":")
        near = difflib.get_close_matches(base.split("/")[0], [SCENES, VOC, COCO, boxes], n=1)
        meant = near[0] if near else f"{SCENES_PREFIX}{dataset or DIGITS}"
        if near == [boxes]:
            meant = f"{BOXES_PREFIX}{dataset[len(base) + 1 :] or 'PATH'}"
        if os.path.isdir(path := dataset.removeprefix(FOLDER_PREFIX)):
            meant = f"{BOXES_PREFIX}{path}"
        raise UserError(
            f"Data set {dataset!r} has no boxes; allowed: {_BOXED}. Did you mean {meant!r}?"
        )


def check_holdout(name: str, splits: tuple[str, ...], share: float) -> None:
    """Refuses to hold out a test split where there is one.

    Args:
        name: of the data set.
        splits: what it has.
        share: of the training images.

    Raises:
        UserError: naming both.
    """
    if "test" in splits:
        raise UserError(
            f"--holdout={share:g} has no effect: data set {name!r} has a test split of its own; "
            "leave it out."
        )


def _check_folder(prefix: str, path: str) -> None:
    if not path:
        raise UserError(f"'{prefix}' names no folder; allowed: {prefix}PATH.")
    if os.path.isdir(path):
        return
    if os.path.exists(path):
        raise UserError(f"{path!r} is not a folder; allowed: {prefix} and a folder of images.")
    parent, name = os.path.split(path.rstrip(os.sep))
    parent = parent or "."
    hint = ""
    with contextlib.suppress(OSError):
        beside = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
        near = difflib.get_close_matches(name, beside, n=1, cutoff=0.4)
        if near:
            hint = f" Did you mean '{prefix}{os.path.join(os.path.dirname(path), near[0])}'?"
    raise UserError(f"Folder {path!r} does not exist; allowed: an existing folder.{hint}")


def colour(name: str, text: str) -> tuple[int, int, int]:
    """Reads a colour.

    Args:
        name: name of the setting.
        text: `white`, `black`, `grey`, or two hexadecimal digits each of red, green and blue, such
            as `#ff8000`.

    Raises:
        UserError: on another form.
    """
    if text in _COLOURS:
        return _COLOURS[text]
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UserError(
            f"--{name}={text!r} cannot be used; allowed: {', '.join(_COLOURS)}, or #RRGGBB such as "
            "#ff8000."
        )
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
