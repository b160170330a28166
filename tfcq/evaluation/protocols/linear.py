"""Linear evaluation: a linear classifier on frozen features, or on those of augmented images."""

import functools
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tfcq.evaluation.accuracy import Accuracy, Column, LabelledImages
from tfcq.evaluation.classifier import Training, with_classifier
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols import Runner
from tfcq.evaluation.protocols.fit import augmented, fit, mean_and_variance
from tfcq.evaluation.scoring import Scoring
from tfcq.evaluation.sweep import Scorer, by_scores
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.bitwidths import FLOAT, BitWidth
from tfcq.settings.protocol_groups import LabelledTraining
from tfcq.settings.protocols import PROTOCOLS

_PROTOCOL = PROTOCOLS["linear"]


def on_cached_features(evaluation: Scoring, training: Training, standardized: bool) -> Scorer:
    """Returns what trains a linear classifier on features that were computed once.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        standardized: whether features are scaled to mean 0 and deviation 1 first.
    """
    data, seed = evaluation.data, evaluation.seed

    def trained(train: np.ndarray, test: np.ndarray, column: Column) -> Accuracy:
        inputs = keras.Input(train.shape[1:])
        identity = QuantizableModel(inputs, inputs)
        scaling = mean_and_variance(train) if standardized else None
        start = training.classifier_start
        head = with_classifier(identity, data.classes, scaling, start, seed)
        # A seed of its own for the order: Keras's would depend on what ran before.
        # Places are shuffled, not features, of which large data sets have many.
        features, labels = tf.convert_to_tensor(train), tf.convert_to_tensor(data.train_labels)
        batches = (
            tf.data.Dataset.range(len(train))
            .shuffle(len(train), seed=seed, reshuffle_each_iteration=True)
            .batch(training.batch_size, drop_remainder=True)
            .map(lambda places: (tf.gather(features, places), tf.gather(labels, places)))
            .repeat()
        )
        logits = FeatureExtractor(head)
        return fit(
            evaluation, training, head, column, FLOAT, batches, lambda count: logits(test[:count])
        )

    return trained


def on_augmented_images(
    evaluation: Evaluation, training: Training, standardized: bool
) -> Iterator[Accuracy]:
    """Trains a linear classifier on frozen features of augmented images, at every bit-width.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        standardized: whether features are scaled to mean 0 and deviation 1 of the images as they
            are.
    """
    data, seed = evaluation.data, evaluation.seed
    post_training = evaluation.post_training(copy_of(evaluation.backbone))
    crops = evaluation.augmentation(_PROTOCOL)
    for bits in evaluation.bit_widths:
        keras.utils.set_random_seed(seed)
        quantized = post_training.at(bits)
        backbone = quantized.model
        backbone.trainable = False
        scaling = None
        if standardized:
            scaling = mean_and_variance(FeatureExtractor(backbone)(data.train_images, bits))
        network = with_classifier(backbone, data.classes, scaling, training.classifier_start, seed)
        scores = functools.partial(_first_logits, FeatureExtractor(network), data, bits)
        found = fit(
            evaluation,
            training,
            network,
            bits,
            bits,
            augmented(evaluation, crops, evaluation.split, training.batch_size),
            scores,
            ranges="recorded",
            frozen=True,
        )
        yield found.chosen_by(quantized)


def _first_logits(
    logits: FeatureExtractor, data: LabelledImages, bits: BitWidth, count: int | None
) -> np.ndarray:
    return logits(data.test_images[:count], bits)


def probe(evaluation: Scoring, settings: LabelledTraining) -> Scorer:
    """Returns what trains the linear probe on features that were computed once.

    Args:
        evaluation: what is measured.
        settings: how it is trained.
    """

    def scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
        return fit_linear_probe(
            train,
            labels,
            classes,
            settings.epochs,
            settings.learning_rate,
            settings.momentum,
            settings.batch_size,
            evaluation.seed,
        ).logits(test)

    return by_scores(scores, evaluation.data)


def _run(evaluation: Evaluation) -> Iterator[Accuracy]:
    settings = _PROTOCOL.training(evaluation.config.training)
    training = evaluation.training(_PROTOCOL)
    return on_augmented_images(evaluation, training, settings.standardized)


def _scorer(evaluation: Scoring) -> Scorer | None:
    settings = _PROTOCOL.training(evaluation.config.training)
    if evaluation.config.measurement.features != "cached":
        return None
    if settings.trainer == "probe":
        return probe(evaluation, settings)
    return on_cached_features(evaluation, evaluation.training(_PROTOCOL), settings.standardized)


linear = Runner(_run, scorer=_scorer)
