"""The sections of a report in their order, each saying how to get what is not there yet."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfcq.reporting.accuracy import ABSENT, accuracy_blocks, detail_blocks, learning_curve_blocks
from tfcq.reporting.correlation import draw_correlation
from tfcq.reporting.curves import TITLES, Curve, draw_curves
from tfcq.reporting.detection import detection_blocks
from tfcq.reporting.detection_record import DetectionRecord
from tfcq.reporting.embedding import Embedding, draw_embeddings
from tfcq.reporting.kernels import SavedBackbone
from tfcq.reporting.model_card import model_card
from tfcq.reporting.page import Block, Heading, Items, Picture, Section, Table, Text
from tfcq.reporting.summary import Group, compare
from tfcq.reporting.weights import (
    NORMAL_OUTLIERS,
    OUTLIER_DEVIATIONS,
    draw_histograms,
    shown_layers,
    weight_figures,
)

_CORRELATION = "error_correlation"


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What is known of the features of a report's networks.

    Args:
        drawn: the networks that have an embedding.
        notes: why others have none, a sentence each.
    """

    drawn: tuple[Embedding, ...] = ()
    notes: tuple[str, ...] = ()


def report_sections(
    groups: Sequence[Group],
    backbones: dict[str, SavedBackbone],
    embeddings: Embeddings,
    detectors: Mapping[str, Mapping[str, DetectionRecord]] | None = None,
) -> list[Section]:
    """Returns a report.

    Args:
        groups: the runs, those that differ in their seed together.
        backbones: path of a run to its backbone, for runs that have ended.
        embeddings: t-SNE of the features.
        detectors: folder of a detector that is in none of the runs to what was measured there.
    """
    of_runs = {run.path: run.detections for group in groups for run in group.runs}
    detection = Section("Detection", detection_blocks({**of_runs, **(detectors or {})}))
    if not groups:
        return [detection]
    comparisons, names = compare(groups), [group.name for group in groups]
    learning = learning_curve_blocks(comparisons, names)
    no_accuracy = "No run was evaluated: `python -m tfcq.evaluate --run_dir=RUN` does it."
    no_curves = (
        "No evaluation that trains at several bit-widths was made: "
        "`python -m tfcq.evaluate --run_dir=RUN --protocol=qat` makes one."
    )
    return [
        Section("Runs", _runs(groups)),
        Section(
            "Accuracy over bit-widths",
            accuracy_blocks(comparisons, names) or [Text(no_accuracy)],
        ),
        Section("Features (t-SNE)", _features(embeddings)),
        Section("Weights", _weights(groups, backbones)),
        Section("Quantization against contrastive error", _correlation(groups)),
        Section("Learning curves of evaluations", learning or [Text(no_curves)]),
        detection,
        Section("Training", _training(groups)),
        *(model_card(group, comparisons, backbones) for group in groups),
        Section("Details of the evaluations", detail_blocks(comparisons) or [Text(no_accuracy)]),
    ]


def _runs(groups: Sequence[Group]) -> list[Block]:
    rows = []
    for group in groups:
        for run in group.runs:
            done = f"{run.history['epoch'][-1]:g}" if run.history else ABSENT
            state = "ended" if run.backbone else "not ended"
            evaluated = ", ".join(run.evaluations) or "none"
            rows.append((run.path, group.name, str(run.seed), done, state, evaluated))
    header = ("run", "group", "seed", "epochs", "state", "evaluations")
    blocks: list[Block] = [Table(header, rows, words=True)]
    if any(len(group.runs) > 1 for group in groups):
        blocks.append(Text("Runs of a group are averaged; they differ in seed, saving or place."))
    for group in groups:
        seeds = [run.seed for run in group.runs]
        if len(set(seeds)) < len(seeds):
            blocks.append(
                Text(
                    f"{group.name}: several runs have the same seed ({', '.join(map(str, seeds))}),"
                    " so their spread is not that of seeds alone."
                )
            )
    missing = [
        f"{run.path}: {text}" for group in groups for run in group.runs for text in run.missing
    ]
    if missing:
        blocks += [Heading("What is missing"), Items(missing)]
    return blocks


def _features(embeddings: Embeddings) -> list[Block]:
    blocks: list[Block] = []
    alike: dict[tuple[str, int, tuple[str, ...]], list[Embedding]] = {}
    for embedding in embeddings.drawn:
        key = embedding.dataset, len(embedding.labels), embedding.class_names
        alike.setdefault(key, []).append(embedding)
    for number, ((dataset, count, _), drawn) in enumerate(alike.items(), start=1):
        names, bits = [embedding.name for embedding in drawn], list(drawn[0].points)
        images = f"{count} test images of {dataset}"
        blocks.append(
            Picture(
                f"tsne_{number}",
                draw_embeddings(drawn),
                f"t-SNE of the features of {images}, coloured by class; rows: "
                f"{'; '.join(names)}; columns: {', '.join(bits)}.",
                f"Features of {images} under t-SNE, coloured by class. The first ended "
                "run of each group. Each panel is an embedding of its own: clusters may be "
                "compared, places and distances between panels may not.",
            )
        )
    return blocks + [Text(note) for note in embeddings.notes]


def _weights(groups: Sequence[Group], backbones: dict[str, SavedBackbone]) -> list[Block]:
    kernels = {
        group.name: [backbones[run.path].kernels for run in group.runs if run.path in backbones]
        for group in groups
    }
    kernels = {name: found for name, found in kernels.items() if found}
    if not kernels:
        return [Text("No run has ended, so there are no trained weights: `python -m tfcq.train`.")]
    blocks: list[Block] = []
    firsts = {name: found[0] for name, found in kernels.items()}
    layers = shown_layers(list(firsts.values()))
    if layers:
        blocks.append(
            Picture(
                "weights",
                draw_histograms(firsts, layers, [group.name for group in groups]),
                f"Histograms of the weights of {', '.join(layers)}; rows: {'; '.join(firsts)}.",
                "Weights of layers spread over the depth, with the least and the greatest dotted. "
                "Counts are logarithmic, so that single outliers are seen. The first ended run of "
                "each group.",
            )
        )
    else:
        blocks.append(Text("The networks have no layer in common, so no histograms are drawn."))
    return [*blocks, _weight_table(kernels)]


def _weight_table(kernels: dict[str, list[dict[str, np.ndarray]]]) -> Table:
    header = ["layer", "weights"]
    for name in kernels:
        header += [f"range, {name}", f"range / std, {name}", f"outliers %, {name}"]
    layers = dict.fromkeys(layer for found in kernels.values() for one in found for layer in one)
    rows = []
    for layer in layers:
        sizes: dict[int, None] = {}
        cells = []
        for found in kernels.values():
            figures = [weight_figures(one[layer]) for one in found if layer in one]
            if not figures:
                cells += [ABSENT] * 3
                continue
            sizes |= {one.count: None for one in figures}
            cells += [
                f"{np.mean([one.range for one in figures]):.3f}",
                f"{np.mean([one.range_in_deviations for one in figures]):.1f}",
                f"{100 * np.mean([one.outliers for one in figures]):.2f}",
            ]
        rows.append((layer, " / ".join(f"{size:,}" for size in sizes), *cells))
    caption = (
        "Range: greatest weight minus least; std: standard deviation; outliers: share of weights "
        f"beyond {OUTLIER_DEVIATIONS} standard deviations from the mean, "
        f"{100 * NORMAL_OUTLIERS:.2f} % in a normal distribution. Means over the runs of a group."
    )
    return Table(header, rows, caption)


def _column(groups: Sequence[Group], name: str) -> list[Curve]:
    return [
        Curve(group.name, run.history["epoch"], run.history[name])
        for group in groups
        for run in group.runs
        if name in run.history
    ]


def _correlation(groups: Sequence[Group]) -> list[Block]:
    blocks: list[Block] = []
    if curves := _column(groups, _CORRELATION):
        rows = []
        for group in groups:
            values = [
                value
                for run in group.runs
                for value in run.history.get(_CORRELATION, [])
                if not math.isnan(value)
            ]
            if values:
                figures = (np.mean(values), min(values), max(values))
                rows.append((group.name, *(f"{figure:+.3f}" for figure in figures)))
        blocks += [
            Picture(
                "error_correlation",
                draw_correlation(curves, [group.name for group in groups]),
                "Correlation of quantization and contrastive errors over training, and the "
                "histogram of its values.",
                "Mean of each epoch. Near 0, the two errors are reduced independently of each "
                "other.",
            ),
            Table(("group", "mean", "least", "greatest"), rows, "Correlation over epochs."),
        ]
    return blocks or [
        Text("Not measured: the flag `--error_correlation` of tfcq.train measures it.")
    ]


def _training(groups: Sequence[Group]) -> list[Block]:
    shown = ("epoch", _CORRELATION)
    names = dict.fromkeys(
        name for group in groups for run in group.runs for name in run.history if name not in shown
    )
    known = {name: place for place, name in enumerate(TITLES)}
    ordered = sorted(names, key=lambda name: known.get(name, len(known)))
    panels = {name: _column(groups, name) for name in ordered}
    if not panels:
        return [Text("No run has a history: `python -m tfcq.train` writes it, a row per epoch.")]
    last = [
        f"{run.path}: "
        + ", ".join(f"{name} {values[-1]:.4g}" for name, values in run.history.items())
        for group in groups
        for run in group.runs
        if run.history
    ]
    return [
        Picture(
            "training",
            draw_curves(panels, order=[group.name for group in groups]),
            f"Figures of each epoch of the training, a panel for each: {', '.join(panels)}.",
            "One line for each run; runs that differ in their seed share a colour.",
        ),
        Heading("Last epoch"),
        Items(last),
    ]


def report_title(groups: Sequence[Group], detectors: Sequence[str] = ()) -> str:
    """Returns the heading of a report.

    Args:
        groups: the runs, those that differ in their seed together.
        detectors: folders of detectors that are in none of the runs.
    """
    names = [*(group.name for group in groups), *detectors]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Report: {' against '.join(names[:3])}{more}"
