"""An evaluation of a TFLite file, on one or several sets of kernels."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.data import labelled_images
from tfcq.evaluation.file_subject import FileSubject, open_file
from tfcq.evaluation.scoring import Scoring
from tfcq.evaluation.sweep import Scorer, sweep
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.kernels import RUNTIMES


@dataclasses.dataclass(frozen=True)
class FileEvaluation(Scoring):
    """What every protocol is given of a file.

    Args:
        subject: the file.
    """

    subject: FileSubject

    @property
    def columns(self) -> tuple[str, ...]:
        """The kernels, under which figures stand."""
        return self.config.kernels

    def scored(self, scorers: Mapping[str, Scorer]) -> Iterator[tuple[str, Accuracy]]:
        """Yields protocol and accuracy on each set of kernels.

        Args:
            scorers: by protocol, what gives the accuracy from features.
        """
        return sweep(self.subject.features, self.data, self.columns, scorers)

    def about(self) -> dict[str, Any]:
        """Returns what every record of the file's figures opens with."""
        subject = self.subject
        return {
            "dataset": subject.data.dataset,
            "subject": subject.title,
            "weights": subject.weights,
            "input_range": subject.input_range,
            "policy": "the file's own",
            "seed": self.seed,
        }


def open_file_evaluation(config: EvaluationConfig) -> FileEvaluation:
    """Opens the file and the data of an evaluation, and refuses what does not fit.

    Args:
        config: the settings.

    Raises:
        UserError: when the file or the data cannot be had or do not fit each other.
    """
    subject = open_file(config)
    shape, fitted = subject.input_shape, not config.scores_logits
    split, data = labelled_images(
        subject.data, shape, config.data.test_images, config.test_crop, fitted=fitted
    )
    return FileEvaluation(config, subject, split, data)


def runtime_versions() -> dict[str, str]:
    """Returns the versions of the packages that run files, of those that are installed."""
    found = {}
    for name in sorted(set(RUNTIMES.values())):
        try:
            found[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
