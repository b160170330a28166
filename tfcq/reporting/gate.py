"""What the gate found, as tables and as a picture along the network."""

import collections
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tfcq.files import whole_file, write_text
from tfcq.reporting.picture import legend_below, line_style, new_figure, png
from tfcq.reporting.tables import percent, table
from tfcq.settings.kernels import KERNELS


def gate_tables(figures: Mapping[str, Any]) -> str:
    """Returns the figures of the gate as text.

    Args:
        figures: those of `tfcq.deployment.verify`.
    """
    head = ["kernels", "emulation", "first at", "steps as XNNPACK %"]
    columns = {"same_class": "class as XNNPACK %", "top1": "top-1 %"}
    shown = [name for name in columns if name in figures]
    rows = []
    for kernels, found in figures["kernels"].items():
        equal = found["equal_steps"]
        rows.append(
            (
                kernels,
                "equal" if not found["differing"] else f"{found['differing']:,} differ",
                found["first"] or "",
                "" if equal is None else percent(equal),
                *(percent(figures[name][kernels]) for name in shown),
            )
        )
    text = table((*head, *(columns[name] for name in shown)), rows)
    counted = (
        f"{figures['images']:,} images, {figures['elements']:,} values of "
        f"{sum(one['ruled'] for one in figures['operations'])} operations"
    )
    lines = [counted, text]
    if absent := [name for name in KERNELS if name not in figures["kernels"]]:
        lines.append(f"LiteRT has not every operation in its {' and '.join(absent)} kernels.")
    unchecked = collections.Counter(
        one["kind"] for one in figures["operations"] if not one["ruled"]
    )
    if unchecked:
        kinds = ", ".join(f"{kind} {count}" for kind, count in unchecked.most_common())
        lines.append(
            f"Not checked, as they compute in floats or have no rule: {unchecked.total()} of "
            f"{len(figures['operations'])} operations ({kinds})"
        )
    if figures["simulation_equal_steps"] is not None:
        lines.append(
            f"Simulation: {percent(figures['simulation_equal_steps'])}% of steps as XNNPACK, the "
            f"largest difference {figures['simulation_largest_steps']} steps"
        )
    verdict = "passed: LiteRT computes what the file says"
    verdict += " in the operations that were checked" if unchecked else ""
    failed = "FAILED: LiteRT computes something else than the rules of its kernels say"
    return "\n".join([*lines, f"Gate {verdict if figures['passed'] else failed}"])


def export_failure(figures: Mapping[str, Any], lowest: float) -> str:
    """Returns what is wrong with an export, in one line; empty where nothing is.

    Args:
        figures: those of `tfcq.deployment.run.export`.
        lowest: the lowest top-1 agreement of file and simulation, or float network, that is enough.
    """
    if not figures["gate"]["passed"]:
        return "The gate failed; the files were written."
    if figures["agreement"] >= lowest:
        return ""
    simulated = "int8_against_simulation" in figures
    other = f"the {figures['evaluated_bits']} simulation" if simulated else "the float network"
    return (
        f"Top-1 agreement {figures['agreement']:.4f} with {other} is under "
        f"--min_agreement={lowest}; the files were written. A classifier that is unsure decides "
        "near-ties otherwise: train it longer, or lower --min_agreement."
    )


def draw_gate(figures: Mapping[str, Any], title: str) -> bytes:
    """Returns a picture of how differences grow along the network, as PNG.

    Args:
        figures: as for `gate_tables`.
        title: heading of the picture.
    """
    operations = [one for one in figures["operations"] if one["apart"]]
    series = {
        f"{kernels} kernels": [one["apart"][kernels] / one["elements"] for one in operations]
        for kernels in (operations[0]["apart"] if operations else ())
    }
    simulated = [
        (place, one["simulated"] / one["elements"])
        for place, one in enumerate(operations)
        if one["simulated"] is not None
    ]
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    named = {}
    for index, (name, shares) in enumerate(series.items()):
        (named[name],) = axes.plot(
            range(len(shares)), [100 * share for share in shares], **line_style(index)
        )
    if simulated:
        places = [place for place, _ in simulated]
        shares = [100 * share for _, share in simulated]
        (named["simulation"],) = axes.plot(places, shares, **line_style(len(series)))
    axes.set_xlabel("operation, in the order of the network")
    axes.set_ylabel("steps other than XNNPACK's (%)")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    legend_below(figure, named)
    return png(figure)


def write_gate(place: pathlib.Path, figures: Mapping[str, Any], title: str) -> list[pathlib.Path]:
    """Writes the figures as JSON and Markdown, and the picture.

    Args:
        place: path of the files, without suffix.
        figures: as for `gate_tables`.
        title: heading of page and picture.

    Returns:
        The files.
    """
    files = [place.with_name(f"{place.name}.{suffix}") for suffix in ("json", "md", "png")]
    write_text(files[0], json.dumps(figures, indent=2) + "\n")
    picture = draw_gate(figures, title)
    with whole_file(files[2]) as temporary:
        temporary.write_bytes(picture)
    picture_line = f"![Differences along the network]({files[2].name})"
    write_text(files[1], f"# {title}\n\n{gate_tables(figures)}\n\n{picture_line}\n")
    return files
