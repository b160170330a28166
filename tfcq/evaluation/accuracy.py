"""Accuracy of scores, and what it is measured on."""

import dataclasses

import numpy as np

from tfcq.data.image_stream import Images
from tfcq.post_training.plan import Quantized
from tfcq.settings.bitwidths import BitWidth

# What a figure stands under: the bit-width of a network, or the kernels that a TFLite file runs on.
Column = BitWidth | str


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Training and test images with labels.

    Args:
        train_images: float [count, height, width, channels], an array or a stream.
        train_labels: int [count].
        test_images: float [count, height, width, channels], an array or a stream.
        test_labels: int [count].
        classes: number of classes.
        test_crop: share of the shorter side that both kinds of images were cut to.
    """

    train_images: Images
    train_labels: np.ndarray
    test_images: Images
    test_labels: np.ndarray
    classes: int
    test_crop: float = 1.0


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracy at one bit-width, or of a TFLite file on one set of kernels.

    Args:
        bits: the bit-width, such as `4w8a`; None of a file.
        top1: share of test images whose label has the highest score, 0 to 1.
        top5: share whose label is among the five highest scores, 0 to 1.
        mean_per_class: mean over the classes of the share of their images that are top 1, as
            Flowers-102, Pets, Caltech-101 and Aircraft are reported, 0 to 1.
        curve: where something was trained at this bit-width, `{"epoch", "loss", "top1"}` of every
            epoch.
        ranges: whose activation ranges were used: those of a `"float pass"` over the calibration
            images, of a `"quantized pass"` at this bit-width, or those `"of its training"` that the
            network was saved with (and of which pass any others); None where quantizers have none.
        weight_bits: bits of each layer's weights, where post-training chose them.
        steps: what was done after training, in words; None in float.
        kernels: the kernels that a file ran on, such as `xnnpack`; None of a network.
    """

    bits: str | None
    top1: float
    top5: float
    mean_per_class: float
    curve: list[dict[str, float]] | None = None
    ranges: str | None = None
    weight_bits: dict[str, int] | None = None
    steps: str | None = None
    kernels: str | None = None

    @property
    def column(self) -> str:
        """The bit-width, or the kernels."""
        return str(self.bits or self.kernels)

    def chosen_by(self, quantized: Quantized) -> "Accuracy":
        """Returns the same with what was chosen after training.

        Args:
            quantized: the model that it was measured of.
        """
        return dataclasses.replace(
            self,
            ranges=quantized.ranges,
            weight_bits=quantized.weight_bits,
            steps=quantized.steps,
        )


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


def accuracy_of(scores: np.ndarray, labels: np.ndarray, column: Column) -> Accuracy:
    """Returns the accuracy of scores.

    Args:
        scores: float [count, classes].
        labels: int [count].
        column: the bit-width that they were computed at, or the kernels that a file ran on.
    """
    bits, kernels = (None, column) if isinstance(column, str) else (str(column), None)
    classes = np.unique(labels)
    shares = [accuracy(scores[labels == label], labels[labels == label], 1) for label in classes]
    return Accuracy(
        bits,
        accuracy(scores, labels, 1),
        accuracy(scores, labels, 5),
        float(np.mean(shares)),
        kernels=kernels,
    )


def majority_share(labels: np.ndarray) -> float:
    """Returns the share of the most frequent class, which any constant answer reaches.

    Args:
        labels: int [count].
    """
    return float(np.max(np.bincount(labels)) / len(labels))
