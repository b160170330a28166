"""Training of the whole network: fine-tuning in float, and with few labels at a bit-width."""

import functools
from collections.abc import Iterator

import keras

from tfcq.data.augmentation import Augmentation
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.classifier import Training, with_classifier
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.label_subsets import label_subset
from tfcq.evaluation.protocols import Runner
from tfcq.evaluation.protocols.classifier import classify
from tfcq.evaluation.protocols.fit import Keep, fit_network
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel, quantizers_of
from tfcq.settings.bitwidths import FLOAT, BitWidth
from tfcq.settings.protocols import PROTOCOLS, Protocol

_FINETUNE, _SEMI = PROTOCOLS["finetune"], PROTOCOLS["semi"]


def finetuned(
    evaluation: Evaluation,
    training: Training,
    augmentation: Augmentation,
    label_share: float | None = None,
    from_scratch: bool = False,
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains the whole network in float and yields its accuracy at every bit-width.

    SSQL, Sec. 4.1: fine-tuning, then post-training quantization.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        augmentation: how training images are augmented.
        label_share: share of every class's labels, above 0 to 1; None for all.
        from_scratch: start from random weights.
        keep: takes the trained float network.
    """
    network, trained = trained_network(
        evaluation, training, augmentation, FLOAT, label_share, from_scratch
    )
    if keep is not None:
        keep(FLOAT, network)
    if FLOAT not in evaluation.bit_widths:
        # Its learning curve and what quantization starts from are figures of the protocol.
        yield trained
    for found in classify(evaluation, network):
        yield trained if found.bits == trained.bits else found


def trained_at_each_bit_width(
    evaluation: Evaluation,
    training: Training,
    augmentation: Augmentation,
    label_share: float,
    from_scratch: bool = False,
    keep: Keep | None = None,
) -> Iterator[Accuracy]:
    """Trains the whole network with few labels at every bit-width, quantized while it is trained.

    Contrastive Quant, Sec. 4.1: fine-tuning under a fixed precision.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        augmentation: how training images are augmented.
        label_share: share of every class's labels, above 0 to 1.
        from_scratch: start from random weights.
        keep: takes the network trained at each bit-width.
    """
    for bits in evaluation.bit_widths:
        network, found = trained_network(
            evaluation, training, augmentation, bits, label_share, from_scratch
        )
        if keep is not None:
            keep(bits, network)
        yield found


def trained_network(
    evaluation: Evaluation,
    training: Training,
    augmentation: Augmentation,
    bits: BitWidth,
    label_share: float | None = None,
    from_scratch: bool = False,
) -> tuple[QuantizableModel, Accuracy]:
    """Returns a network trained as a whole, and its accuracy at the bits it was trained at.

    Args:
        evaluation: what is measured.
        training: how it is trained.
        augmentation: how training images are augmented.
        bits: the bit-width.
        label_share: share of every class's labels, above 0 to 1; None for all.
        from_scratch: start from random weights.
    """
    split, seed, data = evaluation.split, evaluation.seed, evaluation.data
    if label_share is not None:
        split = split.subset(label_subset(data.train_labels, label_share, seed).tolist())
    # A start of its own for every training, whatever was trained before it.
    keras.utils.set_random_seed(seed)
    backbone = copy_of(evaluation.backbone, weights=not from_scratch)
    network = with_classifier(backbone, data.classes, None, training.classifier_start, seed)
    return network, fit_network(evaluation, training, augmentation, network, bits, split)


def _asked_for(evaluation: Evaluation, protocol: Protocol) -> dict:
    measurement = evaluation.config.measurement
    return {
        "training": evaluation.training(protocol),
        "augmentation": evaluation.augmentation(protocol),
        "label_share": measurement.label_share,
        "from_scratch": measurement.from_scratch,
        "keep": functools.partial(evaluation.keep, protocol),
    }


def _check_learned_scales(evaluation: Evaluation) -> None:
    """Refuses float fine-tuning where quantizers learn scales: it would leave them behind."""
    subject = evaluation.subject
    for attribute in ("weight_quantizer", "quantizer"):
        for name, quantizer in quantizers_of(subject.model, attribute).items():
            if quantizer.learns_scale:
                raise UserError(
                    f"Layer {name!r} of {subject.title} has a learned scale, which fine-tuning in "
                    "float does not train; allowed: --policy=paper, or --protocol=qat."
                )


finetune = Runner(
    lambda evaluation: finetuned(evaluation, **_asked_for(evaluation, _FINETUNE)),
    _check_learned_scales,
)
semi = Runner(
    lambda evaluation: trained_at_each_bit_width(evaluation, **_asked_for(evaluation, _SEMI))
)
