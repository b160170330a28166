"""Scores a classifier as it is, after post-training quantization."""

from collections.abc import Iterator

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


def _check(evaluation: Evaluation) -> None:
    evaluation.subject.check_classifier(evaluation.data.classes)


classifier = Runner(lambda evaluation: classify(evaluation, evaluation.backbone), _check)
