"""Arithmetic of a study: means, spreads and paired differences of its records."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from studies.study import MOST_SEEDS, Followed, Row, Scoring, Study

from tfcq.errors import UserError

Record = dict[str, Any]
# Student's t at 0.975 by degrees of freedom, from 1: SciPy has them, and is no dependency of ours.
T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
NONE = "-"


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of paired differences and half the length of its 95% interval.

    Student's t: mean ± t(0.975, n - 1) s / sqrt(n), with s the sample's standard deviation.

    Args:
        differences: one for each seed, two to ten.

    Raises:
        UserError: on fewer or more.
    """
    count = len(differences)
    if not 2 <= count <= MOST_SEEDS:
        raise UserError(f"An interval of {count} seeds; allowed: 2 to {MOST_SEEDS}.")
    half = T975[count - 2] * statistics.stdev(differences) / math.sqrt(count)
    return statistics.mean(differences), half


def records_of(row: Row, records: Iterable[Record]) -> dict[int, Record]:
    """Returns a row's records by seed."""
    return {record["seed"]: record for record in records if record["row"] == row.name}


def values(row: Row, records: Sequence[Record], protocol: str, bits: str) -> dict[int, float]:
    """Returns a row's accuracy by seed, of those that have one.

    Args:
        row: the row.
        records: of all rows.
        protocol: the protocol.
        bits: the bit-width.
    """
    scores = {
        seed: one["scores"].get(protocol, {}) for seed, one in records_of(row, records).items()
    }
    return {seed: found[bits] for seed, found in scores.items() if bits in found}


def spread(found: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """Returns mean and sample standard deviation, in percent unless told otherwise."""
    if not found:
        return NONE
    mean = f"{scale * statistics.mean(found):.{digits}f}"
    more = f" ± {scale * statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return mean + more


def over_training(
    row: Row, records: Sequence[Record], followed: Followed, bits: str
) -> dict[int, list[float]]:
    """Returns a row's accuracy by epoch, of the seeds that have one after every epoch.

    Args:
        row: the row.
        records: of all rows.
        followed: the epochs.
        bits: the bit-width.
    """
    every = [one["followed"] for one in records_of(row, records).values()]
    whole = [one for one in every if all(bits in one.get(str(e), {}) for e in followed.epochs)]
    return {epoch: [one[str(epoch)][bits] for one in whole] for epoch in followed.epochs}


def columns_of(study: Study, scoring: Scoring) -> list[str]:
    """Returns every bit-width that a protocol or a row of its own names."""
    several = (row.bits or scoring.bits for row in study.rows)
    return list(
        dict.fromkeys(bits for text in (scoring.bits, *several) for bits in text.split(","))
    )
