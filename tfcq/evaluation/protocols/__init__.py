"""How protocols are run: each has a file of its own, which `Protocol.runner` names."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.scoring import Scoring
from tfcq.evaluation.sweep import Scorer
from tfcq.settings.protocols import Protocol


def _nowhere(evaluation: Scoring) -> Iterator[Accuracy]:
    raise NotImplementedError


def _nothing(evaluation: Scoring) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Runner:
    """How a protocol is run: on an `Evaluation`, or any `Scoring` where it trains no network.

    Args:
        run: yields the accuracy at every bit-width of an evaluation.
        check: refuses an evaluation that it cannot run, before anything is trained.
        scorer: returns what scores frozen features, which all protocols of that kind then share in
            place of `run`; None where features are not all it needs.
    """

    run: Callable[[Any], Iterator[Accuracy]] = _nowhere
    check: Callable[[Any], None] = _nothing
    scorer: Callable[[Any], Scorer | None] = _nothing


def runner_of(protocol: Protocol) -> Runner:
    """Returns how a protocol is run.

    Args:
        protocol: the protocol.
    """
    module, _, name = protocol.runner.partition(":")
    return getattr(importlib.import_module(module), name)
