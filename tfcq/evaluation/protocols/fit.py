"""Trains a classifier in float or at a bit-width, and scores it as it was trained."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcq.data.augmentation import Augmentation
from tfcq.data.split import Split
from tfcq.data.views import view_batches
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, Column, accuracy_of
from tfcq.evaluation.classifier import Training, train_classifier, unfreeze
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import moments
from tfcq.evaluation.scoring import Scoring
from tfcq.nn.activation_ranges import takes_ranges
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.bitwidths import BitWidth

# Takes every network that was trained at a bit-width.
Keep = Callable[[BitWidth, QuantizableModel], None]


def fit_network(
    evaluation: Evaluation,
    training: Training,
    augmentation: Augmentation,
    network: QuantizableModel,
    bits: BitWidth,
    split: Split,
) -> Accuracy:
    """Trains a whole network at a bit-width, also what was frozen before; returns its accuracy.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        augmentation: how training images are augmented.
        network: quantizable model from images to logits, trained in place.
        bits: the bit-width.
        split: the labelled training images.
    """
    unfreeze(network)
    test_images = evaluation.data.test_images
    logits, calibration = FeatureExtractor(network), evaluation.calibration(network)
    ranges = None

    def scores(count: int | None) -> np.ndarray:
        nonlocal ranges
        if not bits.is_float:
            calibration.observe()
            ranges = calibration.set_ranges(bits)
        return logits(test_images[:count], bits)

    found = fit(
        evaluation,
        training,
        network,
        bits,
        bits,
        augmented(evaluation, augmentation, split, training.batch_size),
        scores,
        images=split.size,
        curve_images=evaluation.config.measurement.curve_images,
    )
    return dataclasses.replace(found, ranges=ranges if takes_ranges(network) else None)


def fit(
    evaluation: Scoring,
    training: Training,
    network: QuantizableModel,
    column: Column,
    training_bits: BitWidth,
    batches: tf.data.Dataset,
    scores: Callable[[int | None], np.ndarray],
    images: int | None = None,
    ranges: str = "tensor",
    frozen: bool = False,
    curve_images: int | None = None,
) -> Accuracy:
    """Trains a classifier; returns its last accuracy and its learning curve.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        network: quantizable model to logits, trained in place.
        column: the bit-width that is scored, or the kernels that a file was run on.
        training_bits: bit-width of the training passes.
        batches: yields inputs of the network, and labels.
        scores: gives logits of the first so many test images, or of all for None.
        images: how many images an epoch has; None for all.
        ranges: where activation ranges come from in training, see `Precision`.
        frozen: as for `SupervisedTrainer`.
        curve_images: how many test images score every epoch; None for all.

    Raises:
        UserError: when a batch holds more images than there are.
        TrainingStopped: when it diverges.
    """
    images = images or evaluation.split.size
    if training.batch_size > images:
        raise UserError(
            f"--batch_size={training.batch_size} with {images} labelled images; allowed: 1 to "
            f"{images}."
        )
    steps = images // training.batch_size
    labels = evaluation.data.test_labels
    curve = train_classifier(
        network,
        batches,
        steps,
        training.epochs,
        training.optimizer(steps),
        training_bits,
        score=lambda: accuracy_of(scores(curve_images), labels[:curve_images], column).top1,
        ranges=ranges,
        frozen=frozen,
    )
    return dataclasses.replace(accuracy_of(scores(None), labels, column), curve=curve)


def augmented(
    evaluation: Evaluation, augmentation: Augmentation, split: Split, batch_size: int
) -> tf.data.Dataset:
    """Returns batches of augmented images with labels.

    Args:
        evaluation: what is measured.
        augmentation: how images are augmented.
        split: the labelled images.
        batch_size: images per batch.
    """
    return view_batches(
        split,
        augmentation,
        evaluation.image_size,
        batch_size,
        evaluation.seed,
        views=(1,),
        labels=True,
    )


def mean_and_variance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance of each feature, float [width].

    Args:
        features: float [count, width].
    """
    mean, deviation = moments(features)
    return mean, deviation**2
