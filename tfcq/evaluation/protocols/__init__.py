"""How protocols are run: each has a file of its own, which `Protocol.runner` names."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator

from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.sweep import Scorer
from tfcq.settings.protocols import Protocol


def _nowhere(evaluation: Evaluation) -> Iterator[Accuracy]:
    raise NotImplementedError


def _nothing(evaluation: Evaluation) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Runner:
    """How a protocol is run.

    Args:
        run: yields the accuracy at every bit-width of an evaluation.
        check: refuses an evaluation that it cannot run, before anything is trained.
        scorer: returns what scores frozen features, which all protocols of that kind then share in
            place of `run`; None where features are not all it needs.
    """

    run: Callable[[Evaluation], Iterator[Accuracy]] = _nowhere
    check: Callable[[Evaluation], None] = _nothing
    scorer: Callable[[Evaluation], Scorer | None] = _nothing


def runner_of(protocol: Protocol) -> Runner:
    """Returns how a protocol is run.

    Args:
        protocol: the protocol.
    """
    module, _, name = protocol.runner.partition(":")
    return getattr(importlib.import_module(module), name)
