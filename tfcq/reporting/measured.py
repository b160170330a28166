"""What an evaluation found, as it is printed."""

from typing import Any

from tfcq.evaluation.accuracy import Accuracy
from tfcq.reporting.tables import percent, table
from tfcq.settings.kernels import RUNTIMES

ALWAYS_AMONG_FIVE = 5


def in_words(record: dict[str, Any], results: list[Accuracy]) -> str:
    """Returns a table of accuracies, and what was done to the network for them.

    Args:
        record: what the results file says beside the results.
        results: the accuracy at each bit-width, or of a TFLite file on each kernels.
    """
    figures = {"top-1 %": "top1", "top-5 %": "top5", "mean per class %": "mean_per_class"}
    if record["classes"] <= ALWAYS_AMONG_FIVE:
        figures.pop("top-5 %")
    rows = [
        (name, *(percent(getattr(result, figure)) for result in results))
        for name, figure in figures.items()
    ]
    heading = "bits" if all(result.bits for result in results) else "kernels"
    lines = [
        f"{record['dataset']}, {record['protocol']}, {record['test_images']} test images of "
        f"{record['classes']} classes, the largest {percent(record['majority_share'])}%",
        table((heading, *(result.column for result in results)), rows),
    ]
    chance = [result.column for result in results if result.top1 <= record["majority_share"]]
    if chance:
        lines.append(f"No better than naming the largest class always: {', '.join(chance)}")
    used = dict.fromkeys(RUNTIMES[result.kernels] for result in results if result.kernels)
    if used:
        versions = {name: record["versions"].get(name.replace("-", "_"), "") for name in used}
        lines.append("Runtime: " + ", ".join(f"{n} {v}".strip() for n, v in versions.items()))
    for title, name in (("Activation ranges", "ranges"), ("After training", "steps")):
        found = {
            result.column: getattr(result, name) for result in results if getattr(result, name)
        }
        if len(set(found.values())) == 1:
            lines.append(f"{title}: {next(iter(found.values()))}")
        elif found:
            lines.append(f"{title}: " + "; ".join(f"{b} {text}" for b, text in found.items()))
    return "\n".join(lines)
