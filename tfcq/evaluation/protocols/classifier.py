"""Scores a classifier as it is, after post-training quantization."""

from collections.abc import Iterator

from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, accuracy_of
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.protocols import Runner
from tfcq.nn.quantizable import QuantizableModel


def classify(evaluation: Evaluation, network: QuantizableModel) -> Iterator[Accuracy]:
    """Yields the accuracy of a network's own logits after post-training quantization.

    Args:
        evaluation: what is measured; its backbone is not used.
        network: quantizable model from images to logits.
    """
    logits = QuantizedFeatures(evaluation.post_training(network).at)
    data = evaluation.data
    for bits in evaluation.bit_widths:
        found = accuracy_of(logits(data.test_images, bits), data.test_labels, bits)
        yield found.chosen_by(logits.run)


def check_classifier(evaluation: Evaluation) -> None:
    """Refuses a model that does not give a logit for every class.

    Args:
        evaluation: what is measured.

    Raises:
        UserError: when it does not.
    """
    shape, classes = evaluation.backbone.output_shape, evaluation.data.classes
    if len(shape) != 2 or shape[-1] != classes:
        raise UserError(
            f"Model {evaluation.subject.title!r} returns shape {shape} and the data have {classes} "
            "classes; allowed for the protocol 'classifier': a logit for each class."
        )


classifier = Runner(lambda evaluation: classify(evaluation, evaluation.backbone), check_classifier)
