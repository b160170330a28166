"""Scores a frozen backbone at many bit-widths under protocols that share its features."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from tfcq.command_line import stage
from tfcq.data.image_stream import Images
from tfcq.evaluation.accuracy import Accuracy, LabelledImages, accuracy_of
from tfcq.settings.bitwidths import BitWidth

Features = Callable[[Images, BitWidth], np.ndarray]
# From training and test features at a bit-width to the accuracy.
Scorer = Callable[[np.ndarray, np.ndarray, BitWidth], Accuracy]
# From training features, their labels and test features to scores, float [count, classes].
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def by_scores(scores: Scores, data: LabelledImages) -> Scorer:
    """Returns what gives the accuracy of scores.

    Args:
        scores: gives scores from features.
        data: the labels.
    """

    def accuracy(train: np.ndarray, test: np.ndarray, bits: BitWidth) -> Accuracy:
        found = scores(train, data.train_labels, test, data.classes)
        return accuracy_of(found, data.test_labels, bits)

    return accuracy


def sweep(
    features: Features,
    data: LabelledImages,
    bit_widths: Iterable[BitWidth],
    protocols: Mapping[str, Scorer],
) -> Iterator[tuple[str, Accuracy]]:
    """Yields protocol and accuracy at each bit-width, the classifier always float.

    Features of a bit-width are computed once, whatever the number of protocols.

    Args:
        features: function of images and a bit-width, see `FeatureExtractor`.
        data: images and labels.
        bit_widths: the bit-widths.
        protocols: by name, what gives the accuracy from features.

    Raises:
        UserError: on labels that do not fit.
    """
    for bits in bit_widths:
        count = len(data.train_images) + len(data.test_images)
        stage(f"{bits}: features of {count:,} images, {', '.join(protocols)}")
        train = features(data.train_images, bits)
        test = features(data.test_images, bits)
        for name, scorer in protocols.items():
            yield name, scorer(train, test, bits)
