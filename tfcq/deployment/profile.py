"""How long each operation of a TFLite file takes."""

from typing import Any

import numpy as np

from tfcq.deployment.check import median_seconds
from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import interpreter_of
from tfcq.integer.trial import alone
from tfcq.settings.kernels import XNNPACK

_ENDS = ("QUANTIZE", "DEQUANTIZE")


def operation_seconds(file: LiteFile, repeats: int = 50) -> list[dict[str, Any]]:
    """Returns the median duration of each operation alone, on XNNPACK's kernels and one thread.

    Each is timed as a file of its own, so that what a runtime saves between operations, and what
    it adds around them, is not in the figures.

    Args:
        file: the file.
        repeats: how often each is run.

    Returns:
        By operation: the name of its output, its kind, and its seconds; None where the runtime does
        not run it alone.
    """
    calls: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for number, operation in enumerate(file.operations):
        name = file.tensors[operation.outputs[0]].name
        found.append({"name": name, "kind": operation.kind, "seconds": None})
        try:
            interpreter = interpreter_of(alone(file, operation).to_bytes(), 1, XNNPACK)
            interpreter.allocate_tensors()
            for details in interpreter.get_input_details():
                interpreter.set_tensor(
                    details["index"], np.zeros(details["shape"], details["dtype"])
                )
            calls[str(number)] = interpreter.invoke
        except (UserError, RuntimeError, ValueError):
            continue
    for place, seconds in median_seconds(calls, repeats, 5).items():
        found[int(place)]["seconds"] = seconds
    return found


def share_in_float(file: LiteFile, timed: list[dict[str, Any]]) -> float:
    """Returns the share of the time that goes into floats between integers, 0 to 1.

    Args:
        file: the file.
        timed: what `operation_seconds` returned.
    """
    ends = {*file.inputs, *file.outputs}
    seconds = [one["seconds"] or 0.0 for one in timed]
    inner = [
        value
        for operation, value in zip(file.operations, seconds, strict=True)
        if "float32" in {file.tensors[i].dtype for i in (*operation.inputs, *operation.outputs)}
        and not (operation.kind in _ENDS and ends & {*operation.inputs, *operation.outputs})
    ]
    return sum(inner) / max(sum(seconds), 1e-12)
