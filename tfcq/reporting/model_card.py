"""The model card of a group of runs: what it is, how it was made and does, how to use it."""

from collections.abc import Sequence

from tfcq.reporting.accuracy import cell, title
from tfcq.reporting.kernels import SavedBackbone
from tfcq.reporting.page import Block, Code, Heading, Items, Section, Table
from tfcq.reporting.run_record import RunRecord
from tfcq.reporting.summary import Comparison, Group
from tfcq.reporting.tables import percent


def model_card(
    group: Group, comparisons: Sequence[Comparison], backbones: dict[str, SavedBackbone]
) -> Section:
    """Returns the model card of runs that are trained alike but for their seed.

    Args:
        group: the runs.
        comparisons: all sets of comparable evaluations.
        backbones: path of a run to its backbone, for runs that have ended.
    """
    first = next((run for run in group.runs if run.path in backbones), group.runs[0])
    backbone = backbones.get(first.path)
    blocks: list[Block] = [Table(("fact", "value"), _facts(group, first, backbone), words=True)]
    changed = [(name, str(value)) for name, value in first.changed.items() if name != "seed"]
    blocks.append(Heading("Settings that differ from their defaults"))
    blocks.append(
        Table(("setting", "value"), changed, words=True) if changed else Items(("None.",))
    )
    blocks.append(Heading("Accuracy"))
    blocks += _accuracies(group, comparisons)
    blocks += _exports(group)
    blocks += [Heading("Intended use and limits"), Items(_limits(group, first, backbone))]
    versions = _versions(group)
    if versions:
        blocks += [Heading("Versions"), Items(versions)]
    if backbone is not None:
        blocks += [Heading("How to load it"), Code(snippet(first, backbone), "python")]
    return Section(f"Model card: {group.name}", blocks)


def _facts(group: Group, first: RunRecord, backbone: SavedBackbone | None) -> list[tuple[str, str]]:
    settings = first.settings
    length = settings.get("duration") or f"{settings.get('epochs')} epochs"
    facts = [
        ("backbone", str(settings.get("backbone"))),
        ("framework", str(settings.get("framework"))),
        ("recipe", str(settings.get("recipe"))),
        ("bits in training", first.bits),
        ("data", _data(settings["dataset"], first.changed.get("train_images"))),
        ("length", f"{length}, batches of {settings.get('batch_size')}"),
        ("runs", ", ".join(f"{run.path} (seed {run.seed})" for run in group.runs)),
    ]
    if backbone is not None:
        weights = sum(kernel.size for kernel in backbone.kernels.values())
        facts += [
            ("input", f"images of {_shape(backbone)}, float, pixels from 0 to 1"),
            ("weights in kernels", f"{weights:,} in {len(backbone.kernels)} layers"),
        ]
    return facts


def _data(dataset: str, count: int | None) -> str:
    return f"{dataset}, " + (
        f"the first {count} training images" if count else "all training images"
    )


def _shape(backbone: SavedBackbone) -> str:
    return " x ".join("any" if length is None else str(length) for length in backbone.input_shape)


def _accuracies(group: Group, comparisons: Sequence[Comparison]) -> list[Block]:
    blocks: list[Block] = []
    for comparison in comparisons:
        if group not in comparison.groups:
            continue
        place = comparison.groups.index(group)
        count = len(comparison.records[place])
        cells = [cell(comparison.statistic(place, bits), count) for bits in comparison.bits]
        heading = f"{title(comparison, comparisons)}; top-1 in percent, {count} run(s)"
        blocks.append(Table((comparison.heading, *comparison.bits), [("top-1 %", *cells)], heading))
    return blocks or [Items(("Not evaluated.",))]


def _exports(group: Group) -> list[Block]:
    rows = []
    for run in group.runs:
        if run.export is None:
            continue
        found, sizes = run.export, run.export.get("bytes", {})
        times = run.export.get("milliseconds_per_image", {})
        rows += [
            (run.path, "policy", str(found.get("policy", "as trained"))),
            (run.path, "test images", str(found.get("test_images", "unknown"))),
        ]
        if "agreement" in found:
            text = f"top-1 agreement with the {found.get('evaluated_bits', '8w8a')} simulation, %"
            rows.append((run.path, text, percent(found["agreement"])))
        rows += [
            (run.path, f"top-1 of {n}, %", percent(v)) for n, v in found.get("top1", {}).items()
        ]
        rows += [(run.path, f"bytes of the {name} model", f"{v:,}") for name, v in sizes.items()]
        rows += [(run.path, f"milliseconds per image, {n}", f"{v:.3f}") for n, v in times.items()]
    if not rows:
        return []
    return [Heading("Exported int8 model"), Table(("run", "figure", "value"), rows)]


def _limits(group: Group, first: RunRecord, backbone: SavedBackbone | None) -> list[str]:
    dataset = first.settings.get("dataset")
    limits = [
        f"Gives features of images like those of {dataset}; pre-trained without labels, it names "
        "no classes until a classifier is trained on its features or the whole is fine-tuned.",
        "Accuracies hold for the data sets, protocols and bit-widths in the tables; nothing was "
        "measured on other data, on corrupted images or on groups of people.",
        "Quantized figures are simulated in float arithmetic, and depend on the images that set "
        "the activation ranges.",
    ]
    if backbone is None:
        limits.append("Training has not ended: there is no model to use yet.")
    measured = [one.record for run in group.runs for one in run.detections.values()]
    if all(run.export is None for run in group.runs) and any("int8" in one for one in measured):
        limits.append(
            "Detectors alone were exported as int8 files, see Detection; nothing is known of their "
            "speed on a device."
        )
    elif all(run.export is None for run in group.runs):
        limits.append(
            "No int8 model was exported, so nothing is known of size or speed on a device."
        )
    else:
        limits.append("Times were measured on the machine that exported the model.")
    if len(group.runs) == 1:
        limits.append("One run, so the spread over seeds is unknown.")
    return limits


def _versions(group: Group) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for run in group.runs:
        records = [record for records in run.evaluations.values() for record in records]
        for record in [*records, run.export or {}]:
            for name, version in (record.get("versions") or {}).items():
                found.setdefault(name, {})[str(version)] = None
    return [f"{name} {', '.join(versions)}" for name, versions in found.items()]


def snippet(run: RunRecord, backbone: SavedBackbone) -> str:
    """Returns a program that loads a backbone and computes features.

    Args:
        run: the run.
        backbone: its backbone.
    """
    shape = tuple(32 if length is None else length for length in backbone.input_shape)
    return f"""import numpy as np
import tfcq

encoder = tfcq.load({str(run.backbone)!r})
images = np.zeros((1, {", ".join(map(str, shape))}), "float32")  # yours, pixels from 0 to 1
features = encoder(images)
quantized = encoder(images, precision=tfcq.Precision(weight_bits=4, activation_bits=8))
"""
