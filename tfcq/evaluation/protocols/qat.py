"""Quantization-aware training of a float classifier, and what that starts from."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np

from tfcq.data.augmentation import Augmentation
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.classifier import CLASSIFIER, Training, with_classifier
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols import Runner
from tfcq.evaluation.protocols.fit import Keep, fit_network
from tfcq.evaluation.protocols.network import trained_network
from tfcq.nn.cloning import copy_of
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.bitwidths import FLOAT
from tfcq.settings.protocol_groups import QAT_QUANTIZERS, ProtocolTrainingSettings
from tfcq.settings.protocols import PROTOCOLS, STARTS

_PROTOCOL, _FINETUNE = PROTOCOLS["qat"], PROTOCOLS["finetune"]


def trained_further(
    evaluation: Evaluation,
    training: Training,
    augmentation: Augmentation,
    start: Callable[[], QuantizableModel],
    with_quantizers: Callable[[QuantizableModel], QuantizableModel],
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains a float classifier further at every bit-width: quantization-aware training.

    SSQL, Sec. 4.3: from the linear-evaluated, or fine-tuned, float model.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        augmentation: how training images are augmented.
        start: makes the float classifier, a quantizable model from images to logits.
        with_quantizers: returns a model with the same weights and the quantizers to train.
        keep: takes the network trained at each bit-width.
    """
    classifier = start()
    for bits in evaluation.bit_widths:
        # Dropout draws the same whatever was trained before.
        keras.utils.set_random_seed(evaluation.seed)
        network = copy_of(classifier) if bits.is_float else with_quantizers(classifier)
        found = fit_network(evaluation, training, augmentation, network, bits, evaluation.split)
        if keep is not None:
            keep(bits, network)
        yield found


def linear_classifier(evaluation: Evaluation) -> QuantizableModel:
    """Returns the backbone with a linear probe of its float features as classifier.

    The probe's standardization becomes part of the classifier's kernel and bias.

    Args:
        evaluation: what is measured.
    """
    backbone, data = copy_of(evaluation.backbone), evaluation.data
    features = FeatureExtractor(backbone)(data.train_images)
    probe = fit_linear_probe(features, data.train_labels, data.classes, seed=evaluation.seed)
    network = with_classifier(backbone, data.classes)
    kernel = probe.weights / probe.deviation[:, np.newaxis]
    network.get_layer(CLASSIFIER).set_weights([kernel, probe.bias - probe.mean @ kernel])
    return network


def finetuned_classifier(evaluation: Evaluation) -> QuantizableModel:
    """Returns the network fine-tuned in float on all labels, by that protocol's own settings.

    Args:
        evaluation: what is measured.
    """
    own = _as_start(evaluation)
    training, crops = own.training(_FINETUNE), own.augmentation(_FINETUNE)
    return trained_network(evaluation, training, crops, FLOAT)[0]


def _run(evaluation: Evaluation) -> Iterator[Accuracy]:
    config, subject = evaluation.config, evaluation.subject
    policy = subject.policy.with_quantizers(*QAT_QUANTIZERS[config.measurement.quantizer])
    policy = dataclasses.replace(
        policy,
        overrides=((CLASSIFIER, "fp"), *policy.overrides),
        rounding=config.quantizer_rounding or policy.rounding,
    )
    starts = {
        "linear": linear_classifier,
        "finetune": finetuned_classifier,
    }
    start = config.measurement.start
    return trained_further(
        evaluation,
        evaluation.training(_PROTOCOL),
        evaluation.augmentation(_PROTOCOL),
        lambda: starts[start](evaluation) if start in starts else load(start),
        lambda model: requantizable(model, policy),
        functools.partial(evaluation.keep, _PROTOCOL),
    )


def _check(evaluation: Evaluation) -> None:
    """Refuses a start that cannot be trained, or is no classifier of this backbone's architecture.

    Raises:
        UserError: saying what does not fit.
    """
    subject, data = evaluation.subject, evaluation.data
    if subject.saved_quantizers:
        raise UserError(
            f"qat places quantizers of its own, and {subject.title} is quantizable already; say "
            "where they go with --policy, such as --policy=paper."
        )
    start, images = evaluation.config.measurement.start, len(data.train_images)
    batch_size = _FINETUNE.training(_as_start(evaluation).config.training).batch_size
    if start == "finetune" and batch_size > images:
        raise UserError(
            f"--start=finetune fine-tunes with batches of {batch_size}, and there are {images} "
            f"training images; allowed: --batch_size from 1 to {images}, which counts for both."
        )
    if start in STARTS:
        return
    kept = load(start)
    expected = {*_shapes(subject.model), (CLASSIFIER, None)}
    if not isinstance(kept, QuantizableModel) or set(_shapes(kept)) != expected:
        raise UserError(
            f"--start={start} is no classifier on a network like that of {subject.title}; allowed: "
            "one that --protocol=finetune --keep_classifiers saved for it."
        )
    if kept.input_shape != subject.model.input_shape:
        raise UserError(
            f"--start={start} takes images of shape {kept.input_shape[1:]}, and {subject.title} "
            f"{subject.model.input_shape[1:]}; allowed: the same."
        )
    if kept.output_shape[-1] != data.classes:
        raise UserError(
            f"--start={start} tells {kept.output_shape[-1]} classes apart and the data have "
            f"{data.classes}; allowed: a classifier of the same data."
        )


def _shapes(model: keras.Model) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yields name and shape of every kernel; that of a kept classifier is not a backbone's."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _shapes(layer)
        elif layer.name == CLASSIFIER:
            yield layer.name, None
        elif hasattr(layer, "kernel"):
            yield layer.name, tuple(layer.kernel.shape)


def _as_start(evaluation: Evaluation) -> Evaluation:
    """Returns how a start is fine-tuned: as its own protocol is, but for a batch size given."""
    own = ProtocolTrainingSettings(batch_size=evaluation.config.training.batch_size)
    config = dataclasses.replace(evaluation.config, training=own)
    return dataclasses.replace(evaluation, config=config)


qat = Runner(_run, _check)
