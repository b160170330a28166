"""Scores a frozen backbone at many bit-widths under protocols that share its features."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from tfcq.evaluation.accuracy import Accuracy, LabelledImages, accuracy_of
from tfcq.quantization.bitwidths import BitWidth

Features = Callable[[np.ndarray, BitWidth], np.ndarray]
# From training features, their labels and test features to scores, float [count, classes].
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def sweep(
    features: Features,
    data: LabelledImages,
    bit_widths: Iterable[BitWidth],
    protocols: Mapping[str, Scores],
) -> Iterator[tuple[str, Accuracy]]:
    """Yields protocol and accuracy at each bit-width, the classifier always float.

    Features of a bit-width are computed once, whatever the number of protocols.

    Args:
        features: function of images and a bit-width, see `FeatureExtractor`.
        data: images and labels.
        bit_widths: the bit-widths.
        protocols: by name, what gives scores from features.

    Raises:
        UserError: on labels that do not fit.
    """
    for bits in bit_widths:
        train = features(data.train_images, bits)
        test = features(data.test_images, bits)
        for name, scores in protocols.items():
            found = scores(train, data.train_labels, test, data.classes)
            yield name, accuracy_of(found, data.test_labels, bits)
