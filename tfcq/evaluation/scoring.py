"""What every protocol is given, of a network or of a TFLite file."""

import abc
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from tfcq.data.split import Split
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, Column, LabelledImages
from tfcq.evaluation.classifier import Training
from tfcq.evaluation.file_subject import FileSubject
from tfcq.evaluation.subject import Subject
from tfcq.evaluation.sweep import Scorer
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.protocols import Protocol
from tfcq.training.optimizers import optimizer_from


@dataclasses.dataclass(frozen=True)
class Scoring(abc.ABC):
    """Settings, subject and data, read once.

    Args:
        config: the settings.
        subject: what is evaluated.
        split: the labelled training images.
        data: the same as arrays or streams, and the test images.
    """

    config: EvaluationConfig
    subject: Subject | FileSubject
    split: Split
    data: LabelledImages

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """What figures stand under, in the order of the results."""

    @abc.abstractmethod
    def scored(self, scorers: Mapping[str, Scorer]) -> Iterator[tuple[str, Accuracy]]:
        """Yields protocol and accuracy in each column, from frozen features.

        Args:
            scorers: by protocol, what gives the accuracy from features.
        """

    @property
    def seed(self) -> int:
        """Seed of subsets, order and augmentation."""
        return self.config.measurement.seed

    def training(self, protocol: Protocol) -> Training:
        """Returns how a protocol trains a classifier.

        Args:
            protocol: the protocol.
        """
        settings = protocol.training(self.config.training)
        return Training(
            settings.epochs,
            settings.batch_size,
            lambda steps: optimizer_from(settings, steps),
            settings.classifier_start,
        )

    def stem(self, protocol: Protocol) -> pathlib.Path:
        """Returns the path of a protocol's files, without suffix.

        Args:
            protocol: the protocol.
        """
        return file_stem(self.config, self.subject.results, protocol)

    def results_file(self, protocol: Protocol) -> pathlib.Path:
        """Returns the file of a protocol's results.

        Args:
            protocol: the protocol.
        """
        return self.stem(protocol).with_name(f"{self.stem(protocol).name}.json")

    def tell_unscored_outputs(self) -> None:
        """Tells of outputs of a user's model that could be a classifier's own scores."""
        subject, classes = self.subject, self.data.classes
        scored = any(protocol.scores_logits for protocol in self.config.protocols)
        if self.config.subject.model and not scored and subject.output_shape[-1] == classes:
            print(
                f"{subject.title} returns {classes} numbers, as many as there are classes; here "
                "they are features. To score them as they are: "
                "--protocol=classifier (tfcq.export: --classifier).",
                flush=True,
            )

    def check_sizes(self) -> None:
        """Refuses what was asked for and is larger than the data.

        Raises:
            UserError: naming the flag.
        """
        measurement, train, test = self.config.measurement, "training", "test"
        asked = [
            ("batch_size", self.config.training.batch_size, train),
            ("curve_images", measurement.curve_images, test),
        ]
        if measurement.neighbours != type(measurement)().neighbours:
            asked.append(("neighbours", measurement.neighbours, train))
        counts = {train: len(self.data.train_images), test: len(self.data.test_images)}
        for name, value, kind in asked:
            if value is not None and value > counts[kind]:
                raise UserError(
                    f"--{name}={value} with {counts[kind]} {kind} images; allowed: 1 to "
                    f"{counts[kind]}."
                )


def file_stem(config: EvaluationConfig, results: pathlib.Path, protocol: Protocol) -> pathlib.Path:
    """Returns the path of a protocol's files, without suffix.

    Args:
        config: the settings.
        results: folder of the results.
        protocol: the protocol.
    """
    parts = [protocol.name]
    for name in protocol.stem:
        value = getattr(config.measurement, name)
        if isinstance(value, bool):
            parts += [name] if value else []
        elif value is not None:
            parts.append(f"{100 * value:g}" if isinstance(value, float) else str(value))
    # Figures under kernels and under bit-widths are not of one table.
    parts += ["kernels"] if config.scores_file else []
    return results / "_".join(parts)
