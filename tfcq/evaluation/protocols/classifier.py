"""Scores a classifier as it is, after post-training quantization."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tfcq.data.image_stream import Images
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, accuracy_of
from tfcq.evaluation.assumed_pixels import check_assumed_range
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor, QuantizedFeatures
from tfcq.evaluation.file_evaluation import FileEvaluation
from tfcq.evaluation.protocols import Runner
from tfcq.nn.activation_ranges import is_trained_quantized
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.plan import Plan, check_plan
from tfcq.settings.bitwidths import BitWidth

_FULL = 8


def classify(
    evaluation: Evaluation,
    network: QuantizableModel,
    bit_widths: tuple[BitWidth, ...] | None = None,
) -> Iterator[Accuracy]:
    """Yields the accuracy of a network's own logits after post-training quantization.

    Args:
        evaluation: what is measured; its backbone is not used.
        network: quantizable model from images to logits.
        bit_widths: the bit-widths; None for those asked for.
    """
    logits = QuantizedFeatures(evaluation.post_training(network).at)
    data = evaluation.data
    for bits in evaluation.bit_widths if bit_widths is None else bit_widths:
        found = accuracy_of(logits(data.test_images, bits), data.test_labels, bits)
        yield found.chosen_by(logits.run)


def check_classifier(evaluation: Evaluation | FileEvaluation) -> None:
    """Refuses a model that does not give a logit for every class.

    Args:
        evaluation: what is measured.

    Raises:
        UserError: when it does not.
    """
    shape, classes = evaluation.subject.output_shape, evaluation.data.classes
    if len(shape) != 2 or shape[-1] != classes:
        raise UserError(
            f"Model {evaluation.subject.title!r} returns shape {shape} and the data have {classes} "
            "classes; allowed for the protocol 'classifier': a logit for each class."
        )
    if evaluation.subject.assumed_range:
        check_assumed_range(
            evaluation.subject.title,
            evaluation.data.test_images,
            evaluation.data.test_labels,
            _plain_logits(evaluation),
        )


def _plain_logits(evaluation: Evaluation | FileEvaluation) -> Callable[[Images, str], np.ndarray]:
    """Returns what gives the logits of the float model, or of a file on the first kernels.

    It takes images and the range of their pixels.
    """
    if not isinstance(evaluation, Evaluation):
        return lambda images, _: evaluation.subject.features(images, evaluation.columns[0])
    model = evaluation.backbone
    return lambda images, name: FeatureExtractor(model, input_range=name)(images)


def _score(evaluation: Evaluation | FileEvaluation) -> Iterator[Accuracy]:
    """Yields the accuracy of the model itself, after the steps that were asked for or chosen."""
    if isinstance(evaluation, FileEvaluation):
        images, labels = evaluation.data.test_images, evaluation.data.test_labels
        for kernels in evaluation.columns:
            yield accuracy_of(evaluation.subject.features(images, kernels), labels, kernels)
        return
    model = evaluation.backbone
    steps = _steps_below_8_bits(evaluation)
    few = [bits for bits in evaluation.bit_widths if not bits.is_float and min(bits.pair) < _FULL]
    if steps is None or not few:
        yield from classify(evaluation, model)
        return
    # A model of its own: its ranges would else be those of the other steps.
    lower = dataclasses.replace(evaluation, plan=steps)
    for bits in evaluation.bit_widths:
        chosen = lower if bits in few else evaluation
        yield from classify(chosen, copy_of(model), (bits,))


def _steps_below_8_bits(evaluation: Evaluation) -> Plan | None:
    """Returns the steps that are taken where none were asked for; None for those of the rest."""
    model = evaluation.backbone
    if not evaluation.config.chooses_steps or is_trained_quantized(model):
        return None
    for correct_biases in (True, False):
        steps = dataclasses.replace(
            evaluation.plan, calibration="mse", correct_biases=correct_biases
        )
        try:
            check_plan(model, steps)
        except UserError:
            # Quantizers without ranges, or a graph that cannot be cut into parts.
            continue
        return steps
    return None


classifier = Runner(_score, check_classifier)
