"""Scores what is frozen, at many bit-widths or on many kernels, by protocols on its features."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from tfcq.command_line import stage
from tfcq.data.image_stream import Images
from tfcq.evaluation.accuracy import Accuracy, Column, LabelledImages, accuracy_of
from tfcq.settings.bitwidths import BitWidth

At = TypeVar("At", BitWidth, str)
# From training and test features at a bit-width, or of a file on some kernels, to the accuracy.
Scorer = Callable[[np.ndarray, np.ndarray, Column], Accuracy]
# From training features, their labels and test features to scores, float [count, classes].
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def by_scores(scores: Scores, data: LabelledImages) -> Scorer:
    """Returns what gives the accuracy of scores.

    Args:
        scores: gives scores from features.
        data: the labels.
    """

    def accuracy(train: np.ndarray, test: np.ndarray, column: Column) -> Accuracy:
        found = scores(train, data.train_labels, test, data.classes)
        return accuracy_of(found, data.test_labels, column)

    return accuracy


def sweep(
    features: Callable[[Images, At], np.ndarray],
    data: LabelledImages,
    columns: Iterable[At],
    protocols: Mapping[str, Scorer],
) -> Iterator[tuple[str, Accuracy]]:
    """Yields protocol and accuracy in each column, the classifier always float.

    Features of a column are computed once, whatever the number of protocols.

    Args:
        features: function of images and a column, see `FeatureExtractor`.
        data: images and labels.
        columns: the bit-widths, or the kernels that a TFLite file is run on.
        protocols: by name, what gives the accuracy from features.

    Raises:
        UserError: on labels that do not fit.
    """
    for column in columns:
        count = len(data.train_images) + len(data.test_images)
        stage(f"{column}: features of {count:,} images, {', '.join(protocols)}")
        train = features(data.train_images, column)
        test = features(data.test_images, column)
        for name, scorer in protocols.items():
            yield name, scorer(train, test, column)
