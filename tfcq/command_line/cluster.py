"""The cluster that the environment names: one command shares its work, the others take none."""

import os
import sys
from typing import Any

from tfcq.errors import UserError
from tfcq.parsing import parse_json
from tfcq.settings.training_groups import MULTI_WORKER

_JOBS = ("chief", "worker")


def join_cluster(strategy: str | None = "single") -> None:
    """Checks `TF_CONFIG`, and leaves it to the chief to tell of the work.

    Args:
        strategy: how the command shares its work, a name of `STRATEGIES`; None for no work.

    Raises:
        UserError: when it names several processes of which each would do the whole work, is missing
            where it is needed, or cannot be read.
    """
    if strategy is None:
        return
    text = os.environ.get("TF_CONFIG")
    config = parse_json(text, "TF_CONFIG") if text else {}
    try:
        addresses = {job: list(found) for job, found in config.get("cluster", {}).items()}
    except (AttributeError, TypeError):
        raise UserError(
            f"TF_CONFIG is {str(text)[:100]!r}; allowed: TensorFlow's form, or no such variable."
        ) from None
    processes = sum(map(len, addresses.values()))
    if strategy != MULTI_WORKER:
        if processes > 1:
            raise UserError(
                f"TF_CONFIG names {processes} processes, and each would do the whole work; "
                f"allowed: tfcq.train --strategy={MULTI_WORKER}, which shares it, or one process, "
                "whose accelerators --strategy=mirrored takes. Unset TF_CONFIG."
            )
        return
    if processes < 2:
        raise UserError(
            f"--strategy={MULTI_WORKER} needs the addresses of two processes or more in TF_CONFIG, "
            "as docs/runs.md shows; allowed without: --strategy=mirrored, which takes all "
            "accelerators of this machine."
        )
    number = _number(addresses, config.get("task"))
    if number:
        print(f"Worker {number} of {processes}; worker 0 tells of the training.", flush=True)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _number(addresses: dict[str, list], task: Any) -> int:
    """Returns the number of this process among all, the chief's 0."""
    if strange := sorted(set(addresses) - set(_JOBS)):
        raise UserError(
            f"TF_CONFIG names jobs {', '.join(strange)}; allowed: {' and '.join(_JOBS)}."
        )
    places = [(job, index) for job in _JOBS for index in range(len(addresses.get(job, [])))]
    own = (task.get("type"), task.get("index")) if isinstance(task, dict) else None
    if own not in places:
        raise UserError(
            f"TF_CONFIG has the task {task}; allowed: a type and an index such as "
            f'{{"type": "worker", "index": 0}}, of {len(places)} processes.'
        )
    return places.index(own)
