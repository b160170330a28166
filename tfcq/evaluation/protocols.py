"""Protocols that train a classifier: on frozen features, on the whole network, or quantized.

Each yields the accuracy at every bit-width of a task. None knows how the backbone was trained.
"""

import dataclasses
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.pipeline import view_batches
from tfcq.data.sources import Split
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, accuracy_of
from tfcq.evaluation.classifier import (
    CLASSIFIER,
    copy_of,
    train_classifier,
    unfreeze,
    with_classifier,
)
from tfcq.evaluation.features import FeatureExtractor, QuantizedFeatures
from tfcq.evaluation.label_subsets import label_subset
from tfcq.evaluation.linear import fit_linear_probe, moments
from tfcq.evaluation.sweep import Scorer
from tfcq.evaluation.task import Task, Training
from tfcq.nn.activation_ranges import takes_ranges
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.bitwidths import FLOAT, BitWidth

# Takes every network that was trained at a bit-width.
Keep = Callable[[BitWidth, QuantizableModel], None]


def classify(task: Task, network: QuantizableModel) -> Iterator[Accuracy]:
    """Yields the accuracy of a network's own logits after post-training quantization.

    Args:
        task: the task; its backbone is not used.
        network: quantizable model from images to logits.
    """
    logits = QuantizedFeatures(task.quantized(network))
    for bits in task.bit_widths:
        yield accuracy_of(logits(task.data.test_images, bits), task.data.test_labels, bits)


def finetune(
    task: Task,
    training: Training,
    label_share: float | None = None,
    from_scratch: bool = False,
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains the whole network in float and yields its accuracy at every bit-width.

    SSQL, Sec. 4.1: fine-tuning, then post-training quantization.

    Args:
        task: the task.
        training: how it is trained.
        label_share: share of every class's labels, above 0 to 1; None for all.
        from_scratch: start from random weights.
        keep: takes the trained float network.
    """
    network, trained = _finetuned(task, training, FLOAT, label_share, from_scratch)
    if keep is not None:
        keep(FLOAT, network)
    if FLOAT not in task.bit_widths:
        # Its learning curve and what quantization starts from are figures of the protocol.
        yield trained
    for found in classify(task, network):
        yield trained if found.bits == trained.bits else found


def semi(
    task: Task,
    training: Training,
    label_share: float,
    from_scratch: bool = False,
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains the whole network with few labels at every bit-width, quantized while it is trained.

    Contrastive Quant, Sec. 4.1: fine-tuning under a fixed precision.

    Args:
        task: the task.
        training: how it is trained.
        label_share: share of every class's labels, above 0 to 1.
        from_scratch: start from random weights.
        keep: takes the network trained at each bit-width.
    """
    for bits in task.bit_widths:
        network, found = _finetuned(task, training, bits, label_share, from_scratch)
        if keep is not None:
            keep(bits, network)
        yield found


def qat(
    task: Task,
    training: Training,
    start: Callable[[], QuantizableModel],
    with_quantizers: Callable[[QuantizableModel], QuantizableModel],
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains a float classifier further at every bit-width: quantization-aware training.

    SSQL, Sec. 4.3: from the linear-evaluated, or fine-tuned, float model.

    Args:
        task: the task.
        training: how it is trained.
        start: makes the float classifier, a quantizable model from images to logits.
        with_quantizers: returns a model with the same weights and the quantizers to train.
        keep: takes the network trained at each bit-width.
    """
    classifier = start()
    for bits in task.bit_widths:
        # Dropout draws the same whatever was trained before.
        keras.utils.set_random_seed(task.seed)
        network = copy_of(classifier) if bits.is_float else with_quantizers(classifier)
        found = _fit_network(task, training, network, bits, task.split)
        if keep is not None:
            keep(bits, network)
        yield found


def linear_classifier(task: Task) -> QuantizableModel:
    """Returns the backbone with a linear probe of its float features as classifier.

    The probe's standardization becomes part of the classifier's kernel and bias.

    Args:
        task: the task.
    """
    backbone = copy_of(task.backbone)
    data = task.data
    features = FeatureExtractor(backbone)(data.train_images)
    probe = fit_linear_probe(features, data.train_labels, data.classes, seed=task.seed)
    network = with_classifier(backbone, data.classes)
    kernel = probe.weights / probe.deviation[:, np.newaxis]
    network.get_layer(CLASSIFIER).set_weights([kernel, probe.bias - probe.mean @ kernel])
    return network


def finetuned_classifier(task: Task, training: Training) -> QuantizableModel:
    """Returns the network trained in float on all labels.

    Args:
        task: the task.
        training: how it is trained.
    """
    return _finetuned(task, training, FLOAT, None, False)[0]


def linear_cached(task: Task, training: Training, standardized: bool) -> Scorer:
    """Returns what trains a linear classifier on features that were computed once.

    Args:
        task: the task.
        training: how it is trained.
        standardized: whether features are scaled to mean 0 and deviation 1 first.
    """

    def trained(train: np.ndarray, test: np.ndarray, bits: BitWidth) -> Accuracy:
        inputs = keras.Input(train.shape[1:])
        identity = QuantizableModel(inputs, inputs)
        scaling = _moments(train) if standardized else None
        start = training.classifier_start
        head = with_classifier(identity, task.data.classes, scaling, start, task.seed)
        # A seed of its own for the order: Keras's would depend on what ran before.
        # Places are shuffled, not features, of which large data sets have many.
        features, labels = tf.convert_to_tensor(train), tf.convert_to_tensor(task.data.train_labels)
        batches = (
            tf.data.Dataset.range(len(train))
            .shuffle(len(train), seed=task.seed, reshuffle_each_iteration=True)
            .batch(training.batch_size, drop_remainder=True)
            .map(lambda places: (tf.gather(features, places), tf.gather(labels, places)))
            .repeat()
        )
        logits = FeatureExtractor(head)
        return _fit(
            task, training, head, bits, FLOAT, batches, lambda count: logits(test[:count])
        )  # fmt: skip

    return trained


def linear_augmented(task: Task, training: Training, standardized: bool) -> Iterator[Accuracy]:
    """Trains a linear classifier on frozen features of augmented images, at every bit-width.

    Args:
        task: the task.
        training: how it is trained.
        standardized: whether features are scaled to mean 0 and deviation 1 of the images as they
            are.
    """
    quantized = task.quantized(copy_of(task.backbone))
    for bits in task.bit_widths:
        keras.utils.set_random_seed(task.seed)
        backbone = quantized(bits)
        backbone.trainable = False
        moments = None
        if standardized:
            moments = _moments(FeatureExtractor(backbone)(task.data.train_images, bits))
        start = training.classifier_start
        network = with_classifier(backbone, task.data.classes, moments, start, task.seed)
        logits = FeatureExtractor(network)
        batches = _augmented(task, task.split, training.batch_size)
        yield _fit(
            task, training, network, bits, bits, batches,
            lambda count, logits=logits, bits=bits: logits(task.data.test_images[:count], bits),
            ranges="recorded", frozen=True,
        )  # fmt: skip


def _finetuned(
    task: Task, training: Training, bits: BitWidth, label_share: float | None, from_scratch: bool
) -> tuple[QuantizableModel, Accuracy]:
    """Returns a network trained as a whole, and its accuracy at the bits it was trained at."""
    split = task.split
    if label_share is not None:
        subset = label_subset(task.data.train_labels, label_share, task.seed)
        split = split.subset(subset.tolist())
    # A start of its own for every training, whatever was trained before it.
    keras.utils.set_random_seed(task.seed)
    backbone = copy_of(task.backbone, weights=not from_scratch)
    start = training.classifier_start
    network = with_classifier(backbone, task.data.classes, None, start, task.seed)
    return network, _fit_network(task, training, network, bits, split)


def _fit_network(
    task: Task, training: Training, network: QuantizableModel, bits: BitWidth, split: Split
) -> Accuracy:
    # Also what was frozen before: these protocols train the whole network.
    unfreeze(network)
    logits, observe = FeatureExtractor(network), task.calibrator(network)

    ranges = None

    def scores(count: int | None) -> np.ndarray:
        nonlocal ranges
        if not bits.is_float:
            ranges = observe()(bits)
        return logits(task.data.test_images[:count], bits)

    found = _fit(
        task,
        training,
        network,
        bits,
        bits,
        _augmented(task, split, training.batch_size),
        scores,
        images=split.size,
        curve_images=task.curve_images,
    )
    return dataclasses.replace(found, ranges=ranges if takes_ranges(network) else None)


def _fit(
    task: Task,
    training: Training,
    network: QuantizableModel,
    bits: BitWidth,
    training_bits: BitWidth,
    batches: tf.data.Dataset,
    scores: Callable[[int | None], np.ndarray],
    images: int | None = None,
    ranges: str = "tensor",
    frozen: bool = False,
    curve_images: int | None = None,
) -> Accuracy:
    """Trains a classifier; returns its last accuracy and its learning curve.

    `scores` gives those of the first so many test images, or of all for None.
    """
    images = images or task.split.size
    if training.batch_size > images:
        raise UserError(
            f"--batch_size={training.batch_size} with {images} labelled images; allowed: 1 to "
            f"{images}."
        )
    steps = images // training.batch_size
    labels = task.data.test_labels
    curve = train_classifier(
        network,
        batches,
        steps,
        training.epochs,
        training.optimizer(steps),
        training_bits,
        score=lambda: accuracy_of(scores(curve_images), labels[:curve_images], bits).top1,
        ranges=ranges,
        frozen=frozen,
    )
    return dataclasses.replace(accuracy_of(scores(None), labels, bits), curve=curve)


def _augmented(task: Task, split: Split, batch_size: int) -> tf.data.Dataset:
    return view_batches(
        split, task.augmentation, task.image_size, batch_size, task.seed, views=(1,), labels=True
    )


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = moments(features)
    return mean, deviation**2
