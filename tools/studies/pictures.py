"""Pictures of a study: accuracy over bit-widths, over pre-training and over learning curves."""

import math
import pathlib
import statistics
from collections.abc import Sequence

from studies.figures import Record, columns_of, over_training, records_of, values
from studies.study import Study

from tfcq.files import whole_file
from tfcq.reporting.curves import Curve, draw_curves
from tfcq.reporting.plots import plot_accuracy


def draw_pictures(out: pathlib.Path, study: Study, records: Sequence[Record]) -> list[str]:
    """Draws accuracy over bit-widths and over training; returns what shows them."""
    blocks = []
    name, scoring = next(iter(study.protocols.items()))
    columns = columns_of(study, scoring)
    found = {
        row.name: [list(values(row, records, name, bits).values()) for bits in columns]
        for row in study.rows
    }
    found = {row: by_bits for row, by_bits in found.items() if any(by_bits)}
    if found:
        means = {
            row: [statistics.mean(one) if one else math.nan for one in by_bits]
            for row, by_bits in found.items()
        }
        spreads = {
            row: [statistics.stdev(one) if len(one) > 1 else 0.0 for one in by_bits]
            for row, by_bits in found.items()
        }
        plot_accuracy(out.with_suffix(".png"), columns, means, spreads, f"{study.title}, {name}")
        blocks.append(f"![accuracy over bit-width]({out.name}.png)")
    drawn = {"training": _training_curves(study, records), **_learning_curves(study, records)}
    order = [row.name for row in study.rows]
    for kind, panels in drawn.items():
        if any(panels.values()):
            file = out.with_name(f"{out.name}_{kind}.png")
            with whole_file(file) as temporary:
                temporary.write_bytes(draw_curves(panels, "top-1 (%)", order))
            blocks.append(f"![accuracy over epochs, {kind}]({file.name})")
    return blocks


def _training_curves(study: Study, records: Sequence[Record]) -> dict[str, list[Curve]]:
    """Returns mean accuracy over pre-training, by bit-width."""
    if not study.followed:
        return {}
    panels: dict[str, list[Curve]] = {}
    for bits in study.followed.bits.split(","):
        for row in study.rows:
            found = over_training(row, records, study.followed, bits)
            means = {epoch: statistics.mean(at) for epoch, at in found.items() if at}
            if means:
                curve = Curve(row.name, list(means), [100 * mean for mean in means.values()])
                panels.setdefault(bits, []).append(curve)
    return panels


def _learning_curves(study: Study, records: Sequence[Record]) -> dict[str, dict[str, list[Curve]]]:
    """Returns mean accuracy over the epochs of a protocol's training, by protocol and bit-width."""
    drawn: dict[str, dict[str, list[Curve]]] = {}
    for name, scoring in study.protocols.items():
        panels: dict[str, list[Curve]] = {}
        for bits in scoring.bits.split(",") if scoring.learning_curve else ():
            for row in study.rows:
                every = [
                    one["curves"][name][bits]
                    for one in records_of(row, records).values()
                    if bits in one["curves"].get(name, {})
                ]
                if every:
                    means = [100 * statistics.mean(at) for at in zip(*every, strict=True)]
                    curve = Curve(row.name, range(1, len(means) + 1), means)
                    panels.setdefault(bits, []).append(curve)
        drawn[name] = panels
    return drawn
