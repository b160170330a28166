"""Scores a frozen backbone at many bit-widths under a protocol."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tfcq.errors import unknown_choice
from tfcq.evaluation.knn import knn_scores
from tfcq.evaluation.linear import fit_linear_probe
from tfcq.quantization.bitwidths import BitWidth

Features = Callable[[np.ndarray, BitWidth], np.ndarray]
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Training and test images with labels.

    Args:
        train_images: float [count, height, width, channels].
        train_labels: int [count].
        test_images: float [count, height, width, channels].
        test_labels: int [count].
        classes: number of classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracy at one bit-width.

    Args:
        bits: the bit-width, such as `4w8a`.
        top1: share of test images whose label has the highest score, 0 to 1.
        top5: share whose label is among the five highest scores, 0 to 1.
    """

    bits: str
    top1: float
    top5: float


def _linear(train, labels, test, classes, seed):
    return fit_linear_probe(train, labels, classes, seed=seed).logits(test)


def _knn(train, labels, test, classes, seed):
    return knn_scores(train, labels, test, classes)


PROTOCOLS: dict[str, Scores] = {"linear": _linear, "knn": _knn}


def accuracy(scores: np.ndarray, labels: np.ndarray, top: int) -> float:
    """Returns the share of rows whose label is among the `top` highest scores.

    Between equal scores the lower class comes first.

    Args:
        scores: float [count, classes].
        labels: int [count].
        top: how many scores count.
    """
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return float(np.mean(np.any(highest == labels[:, None], axis=1)))


def sweep(
    features: Features,
    data: LabelledImages,
    bit_widths: Iterable[BitWidth],
    protocol: str,
    seed: int = 0,
) -> Iterator[Accuracy]:
    """Yields the accuracy at each bit-width, the classifier always float.

    Args:
        features: function of images and a bit-width, see `FeatureExtractor`.
        data: images and labels.
        bit_widths: the bit-widths.
        protocol: a name in `PROTOCOLS`.
        seed: seed of the classifier's training order.

    Raises:
        UserError: on an unknown protocol or labels that do not fit.
    """
    if protocol not in PROTOCOLS:
        raise unknown_choice("protocol", protocol, PROTOCOLS)
    for bits in bit_widths:
        train = features(data.train_images, bits)
        test = features(data.test_images, bits)
        scores = PROTOCOLS[protocol](train, data.train_labels, test, data.classes, seed)
        yield Accuracy(
            str(bits), accuracy(scores, data.test_labels, 1), accuracy(scores, data.test_labels, 5)
        )
