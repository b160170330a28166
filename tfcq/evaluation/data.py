"""The images that an evaluation or export works on."""

import math
import os

import numpy as np
from absl import logging

from tfcq.data.image_stream import Images, ImageStream, as_array, labels_of
from tfcq.data.plain_images import central_crop, labelled_arrays
from tfcq.data.sources import evaluation_needs, source_from
from tfcq.data.split import Split, view_size
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.probe import check_labels
from tfcq.post_training.observation import calibration_images as drawn_images
from tfcq.settings.training import CALIBRATION_IMAGES
from tfcq.settings.training_groups import DataSettings

# Larger data sets, or such as take more than a quarter of the memory, are decoded anew each time
# they are read. Figures are the same.
HELD_BYTES = 4 * 10**9


def labelled_images(
    data: DataSettings,
    input_shape: tuple[int | None, ...],
    test_images: int | None = None,
    test_crop: float | None = None,
    fitted: bool = True,
) -> tuple[Split, LabelledImages]:
    """Returns the labelled training images, as a split and as arrays, and the test images.

    Images that take more than 4 GB, or a quarter of the memory, are streams instead of arrays.

    Args:
        data: the data set; its image size, or else the model's, decides that of the images.
        input_shape: batch, height, width and channels that a model takes, None for any.
        test_images: how many test images; None for all.
        test_crop: share of the shorter side that plain images keep; None for all of images that
            are no larger than the model's, 0.875 of larger ones.
        fitted: whether classes are told apart from the training images, instead of nothing but
            ranges found.

    Raises:
        UserError: when the data set has no labels or no test split, a class has fewer than two
            training images to be told by, or the model does not take such images.
    """
    opened = source_from(data)
    train = opened.split("train")
    if needs := evaluation_needs(opened, train):
        raise UserError(needs)
    test, class_names = opened.split("test"), train.class_names or ()
    if data.train_images:
        train = train.first(data.train_images)
    if test_images:
        test = test.first(test_images)
    channels = train.image_shape[2]
    if channels != test.image_shape[2]:
        raise UserError(
            f"Training images have {channels} channels and test images {test.image_shape[2]}; "
            "allowed: the same in both, such as with --channels=1 or 3."
        )
    size = taken_size(data, input_shape, train)
    taken_bytes = (train.size + test.size) * size * size * channels * ImageStream.dtype.itemsize
    held = taken_bytes <= min(HELD_BYTES, _memory_bytes() / 4)
    if not held:
        logging.warning(
            "%d images take %.0f GB: they are decoded for a fingerprint and anew for every pass.",
            train.size + test.size,
            taken_bytes / 1e9,
        )
    # Both as the test images ask for, or training and test features would not belong together.
    crop = taken_crop(test, size, test_crop)
    read = _held if held else _streamed
    (images, labels), (held_out, held_out_labels) = (
        read(split, size, crop) for split in (train, test)
    )
    classes = len(class_names)
    labelled = LabelledImages(images, labels, held_out, held_out_labels, classes, crop)
    check_labels(labelled.train_images, labelled.train_labels, labelled.classes)
    check_labels(labelled.test_images, labelled.test_labels, labelled.classes)
    counts = np.bincount(labelled.train_labels, minlength=labelled.classes)
    rarest = int(np.argmin(counts))
    if fitted and counts[rarest] < 2:
        raise UserError(
            f"Class {class_names[rarest]!r} has {counts[rarest]} training images; allowed: "
            "2 and above. Remove the class, or use more images."
        )
    return train, labelled


def taken_size(data: DataSettings, input_shape: tuple[int | None, ...], split: Split) -> int:
    """Returns the height and width, in pixels, at which a model is given images.

    Args:
        data: the data set; its image size, or else the model's, decides.
        input_shape: batch, height, width and channels that a model takes, None for any.
        split: the images.

    Raises:
        UserError: when the model does not take such images.
    """
    channels, taken = split.image_shape[2], input_shape[1:]
    size = view_size(split, data.image_size or taken[0])
    hint = f" --channels={taken[2]} turns them." if {channels, taken[2]} == {1, 3} else ""
    if any(a not in (None, b) for a, b in zip(taken, (size, size, channels), strict=True)):
        raise UserError(
            f"Images of {data.dataset!r} have shape {(size, size, channels)}; the model takes "
            f"{tuple(taken)}.{hint}"
        )
    return size


def taken_crop(split: Split, size: int, asked: float | None) -> float:
    """Returns the share of the shorter side that plain images keep, told where it is not usual.

    Args:
        split: the images.
        size: height and width, in pixels, at which the model is given them.
        asked: the share asked for; None for the usual one.
    """
    crop = central_crop(split, size, asked)
    if crop < 1 or crop != central_crop(split, size):
        seen = "whole" if crop == 1 else f"in their central {crop:g}"
        print(f"Plain images are seen {seen}; see --test_crop.", flush=True)
    return crop


def _memory_bytes() -> float:
    """Returns the size of this machine's memory, infinity where the system does not tell."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _held(split: Split, size: int, crop: float) -> tuple[np.ndarray, np.ndarray]:
    return labelled_arrays(split, size, test_crop=crop)


def _streamed(split: Split, size: int, crop: float) -> tuple[ImageStream, np.ndarray]:
    return ImageStream(split, size, crop), labels_of(split)


def first_images(flag: str, images: Images, count: int | None, usual: int | None = None) -> Images:
    """Returns the first images, as many as a flag asks for.

    Args:
        flag: name of the flag.
        images: float [count, height, width, channels], or a stream.
        count: how many were asked for; None for `usual`, or all if fewer.
        usual: how many are taken where none were asked for; None for all.

    Raises:
        UserError: when more are asked for than there are.
    """
    if count is not None and count > len(images):
        raise UserError(f"--{flag}={count} with {len(images)} images; allowed: 1 to {len(images)}.")
    return images[: count or usual]


def calibration_images(images: Images, count: int | None, seed: int | None) -> np.ndarray:
    """Returns the training images that set activation ranges.

    Args:
        images: float [count, height, width, channels], or a stream.
        count: how many were asked for; None for 1,000, or all if fewer.
        seed: draws them; None for the first ones.

    Raises:
        UserError: when more are asked for than there are.
    """
    first = first_images("calibration_images", images, count, usual=CALIBRATION_IMAGES)
    return as_array(first if seed is None else drawn_images(images, len(first), seed))
