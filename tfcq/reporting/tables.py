"""Tables as text that reads well on a terminal and as Markdown."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfcq.settings.deployment import OWN


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns, the first to the left, others to the right.

    Args:
        header: heading of each column.
        rows: cells of each row, as many as the header has.
    """
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        parts = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return "| " + " | ".join(parts) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":"
        for column, width in enumerate(widths)
    )
    return "\n".join([line(cells[0]), rule + "|", *map(line, cells[1:])])


def percent(share: float) -> str:
    """Returns a share of 1 as percent with one decimal, without the sign."""
    return f"{100 * share:.1f}"


def export_tables(figures: Mapping[str, Any], files: Mapping[str, Sequence[os.PathLike]]) -> str:
    """Returns the figures of an export as text: how outputs agree, and what each model takes.

    Args:
        figures: those of `tfcq.deployment.run.export`.
        files: the files by what they hold.
    """
    bits = figures["evaluated_bits"]
    rows = []
    for name, found in figures.items():
        if "_against_" in name:
            title = name.replace("_", " ").replace("simulation", f"{bits} simulation")
            errors = f"{found['relative_l2']:.4f}", f"{found['largest_error']:.3f}"
            agreement = percent(found["agreement"])
            rows.append((title, agreement, f"{found['cosine_mean']:.5f}", *errors))
    compared = figures["compared"].partition(",")[0]
    agreements = table(
        (compared, "same top-1 %", "cosine", "relative error", "largest error"), rows
    )
    rows = [
        (
            name,
            size,
            f"{figures['milliseconds_per_image'][name]:.3f}",
            percent(figures["top1"][name]),
            str(files[name][0]),
        )
        for name, size in figures["bytes"].items()
    ]
    models = table(("model", "bytes", "ms per image", "top-1 %", "file"), rows)
    own = figures.get("backend", OWN) == OWN
    maker = f"policy {figures['policy']}" if own else figures["backend"]
    lines = [f"{figures['dataset']}, {figures['test_images']} test images, {maker}"]
    lines += [agreements, models, _microcontroller(figures["microcontroller"])]
    if "in_float" in figures:
        names = figures["in_float"]["names"]
        share = percent(figures["in_float"]["share_of_time"])
        lines.append(f"In float: {', '.join(names)}, {share}% of the time of all operations")
    if "profile" in figures:
        lines.append(_profile(figures["profile"]))
    others = [
        str(path)
        for kind, paths in files.items()
        if kind not in (*figures["bytes"], "figures")
        for path in paths
    ]
    return "\n".join([*lines, *(["Also: " + ", ".join(others)] if others else [])])


def _microcontroller(found: Mapping[str, Any]) -> str:
    """Returns what a microcontroller needs, or why that is not known."""
    if "unknown" in found:
        return f"Microcontrollers: {found['unknown']}"
    arena = found["arena"]
    kinds = ", ".join(f"{count:,} {name}" for name, count in arena["kinds"].items())
    equal = {None: "not emulated", 0: "outputs as emulated"}.get(
        found["differing"], f"{found['differing']} outputs OTHER than emulated"
    )
    return (
        f"Microcontrollers: {equal}; {found['flash']:,} bytes of flash, {arena['total']:,} of RAM, "
        f"of which {arena['non_persistent']:,} tensors, {arena['persistent']:,} kept ({kinds})"
    )


def _profile(operations: Sequence[Mapping[str, Any]]) -> str:
    """Returns the operations of a file, the slowest first."""
    timed = [one for one in operations if one["seconds"] is not None]
    total = sum(one["seconds"] for one in timed)
    rows = [
        (one["name"], one["kind"], f"{1000 * one['seconds']:.4f}", percent(one["seconds"] / total))
        for one in sorted(timed, key=lambda one: -one["seconds"])
    ]
    return table(("operation", "kind", "ms alone", "share %"), rows)
