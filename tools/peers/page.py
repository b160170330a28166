"""Page of post-training quantization beside its peers: accuracy, who is ahead, seconds."""

from collections.abc import Callable
from typing import Any

from tfcq.reporting.tables import table

OURS = "tfcq"
Row = dict[str, Any]


def figures(rows: list[Row], key: str, form: Callable[[Any], str]) -> str:
    """Returns a table with a row for each method and a column for each bit-width.

    Args:
        rows: what was measured.
        key: what is shown of a row.
        form: how it is written.
    """
    bits = list(dict.fromkeys(row["bits"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(f"{row['by']}: {row['method']}", {})[row["bits"]] = form(row[key])
    return table(
        ("method", *bits),
        [(name, *(found.get(one, "") for one in bits)) for name, found in cells.items()],
    )


def ahead(rows: list[Row]) -> list[str]:
    """Returns a line for each bit-width: whose best method is ahead, and by how many points.

    Args:
        rows: what was measured.
    """
    lines = []
    for bits in dict.fromkeys(row["bits"] for row in rows):
        found = sorted((r for r in rows if r["bits"] == bits), key=lambda row: -row["top1"])
        best = found[0]
        other = next((r for r in found if (r["by"] == OURS) != (best["by"] == OURS)), None)
        if other:
            points = 100 * (best["top1"] - other["top1"])
            methods = {(r["by"], r["method"]) for r in found}
            ours = sum(by == OURS for by, _ in methods)
            lines.append(
                f"- {bits}: {best['by']} ({best['method']}) {points:.2f} points ahead of the best "
                f"of {other['by']} ({other['method']}); {ours} methods of ours, "
                f"{len(methods) - ours} of theirs"
            )
    return lines


def page(record: Row) -> str:
    """Returns the page of a record.

    Args:
        record: what was measured, with what it was measured on.
    """
    peers = record.get("peers")
    agreement = "Ours alone: no --peer was named."
    if peers:
        agreement = (
            "All start from the same folded float32 weights: the peers' float logits lie within "
            f"{peers['difference']:.0e} of the largest logit, at {100 * peers['top1']:.2f}."
        )
    rows = record["rows"]
    versions = record["versions"] | (peers["versions"] if peers else {})
    notes = [
        f"- Command: `{record['command']}`",
        f"- Commit: {record['commit']}; seed {record['seed']}",
        f"- Versions: {', '.join(f'{name} {found}' for name, found in versions.items())}",
        f"- Machine: {record['machine']}",
    ]
    return "\n".join([
        "# Post-training quantization beside its peers", "",
        f"Top-1 accuracy in percent of `{record['classifier']}` over {record['test_images']:,} "
        f"test images; float: {100 * record['fp']:.2f}. {record['images']} calibration images, the "
        f"same for all; {record['iterations']:,} iterations of learned rounding for each layer; "
        f"policy `{record['policy']}`, with `{record['layer_bits']}`. {agreement}", "",
        figures(rows, "top1", lambda share: f"{100 * share:.2f}"), "",
        f"The best of ours and of theirs, chosen on the test images themselves, one of which is "
        f"{100 / record['test_images']:.2f} points:" if peers else "", *ahead(rows), "",
        "Seconds of a core that a method took, calibration included and the test left out:", "",
        figures(rows, "seconds", lambda seconds: f"{seconds:.1f}"), "", *notes, "",
    ])  # fmt: skip
