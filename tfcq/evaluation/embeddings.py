"""Embeddings of all images of a data set at many bit-widths, as files for other tools."""

import csv
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfcq.command_line import stage
from tfcq.data.image_stream import Images, ImageStream, labels_of
from tfcq.data.sources import source_from
from tfcq.data.split import Split
from tfcq.errors import UserError
from tfcq.evaluation.data import calibration_images, taken_crop, taken_size
from tfcq.evaluation.evaluation import open_subject, plan_of
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.file_subject import FileSubject, open_file
from tfcq.evaluation.subject import Subject
from tfcq.files import whole_file
from tfcq.post_training.plan import PostTraining, check_plan
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.run_folder import RunFolder

ARRAYS = "features.npz"


@dataclasses.dataclass(frozen=True)
class _Part:
    """A split as it is written: its images, and what is known of each."""

    split: Split
    images: ImageStream
    labels: np.ndarray
    names: tuple[str, ...]


def write_embeddings(config: EvaluationConfig) -> list[pathlib.Path]:
    """Writes the embeddings of every image of every split.

    `features.npz` holds an array [images, width] of each bit-width under its name, and in the same
    order `labels` (-1 without), `splits` and `files` (for images that are no files, their places);
    `classes` names the labels. `features_BITS.csv` holds the same of one bit-width. Of a TFLite
    file kernels stand for bit-widths.

    Args:
        config: the settings.

    Returns:
        The files.

    Raises:
        UserError: when subject or data cannot be had or do not fit each other, or a file is there
            already.
    """
    keras.utils.set_random_seed(config.measurement.seed)
    folder = _folder(config)
    columns: tuple[Any, ...] = config.kernels if config.scores_file else config.bit_widths
    files = [folder / ARRAYS, *(folder / f"features_{column}.csv" for column in columns)]
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists; move it away, or give another --output_dir.")
    features: Callable[[Images, Any], np.ndarray]
    if config.scores_file:
        opened = open_file(config)
        parts, classes = _parts(config, opened)
        features = opened.features
    else:
        subject, plan = open_subject(config), plan_of(config)
        check_plan(subject.model, plan)
        parts, classes = _parts(config, subject)
        asked = config.calibration
        ranges = calibration_images(
            parts[0].images, asked.calibration_images, asked.calibration_seed
        )
        features = QuantizedFeatures(PostTraining(subject.model, ranges, plan).at)
    arrays: dict[str, Any] = {
        "labels": np.concatenate([part.labels for part in parts]),
        "splits": np.concatenate([[part.split.name] * part.split.size for part in parts]),
        "files": np.array([name for part in parts for name in part.names]),
        "classes": np.array(classes or (), str),
    }
    for column, file in zip(columns, files[1:], strict=True):
        stage(f"Features at {column}")
        found = np.concatenate([features(part.images, column) for part in parts])
        _write_csv(file, arrays, found)
        arrays[str(column)] = found
    with whole_file(files[0]) as temporary:
        np.savez(temporary, **arrays)
    return files


def _folder(config: EvaluationConfig) -> pathlib.Path:
    if config.subject.output_dir is not None:
        return pathlib.Path(config.subject.output_dir)
    return RunFolder(str(config.subject.run_dir)).features


def _parts(
    config: EvaluationConfig, subject: Subject | FileSubject
) -> tuple[list[_Part], tuple[str, ...] | None]:
    """Returns the splits, that of training first, and the names of the classes."""
    data = subject.data
    source = source_from(data)
    splits = [source.split("train")]
    if data.train_images:
        splits[0] = splits[0].first(data.train_images)
    if "test" in source.splits:
        test = source.split("test")
        splits.append(test.first(config.data.test_images) if config.data.test_images else test)
    elif config.data.test_images:
        raise UserError(f"--test_images has no effect here: {data.dataset!r} has no test split.")
    size = [taken_size(data, subject.input_shape, split) for split in splits][0]
    # Both alike, as in an evaluation.
    crop = taken_crop(splits[-1], size, config.test_crop)
    parts = [
        _Part(
            split,
            ImageStream(split, size, crop),
            labels_of(split),
            split.names or tuple(map(str, range(split.size))),
        )
        for split in splits
    ]
    return parts, splits[0].class_names


def _write_csv(file: pathlib.Path, about: dict[str, np.ndarray], features: np.ndarray) -> None:
    with (
        whole_file(file) as temporary,
        # A name that is no text stays the bytes that it is.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as text,
    ):
        writer = csv.writer(text)
        writer.writerow(["file", "split", "label", *range(features.shape[1])])
        known = zip(about["files"], about["splits"], about["labels"], strict=True)
        for who, values in zip(known, features, strict=True):
            writer.writerow([*who, *map(str, values)])
