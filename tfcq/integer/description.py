"""What a TFLite file holds, as JSON: what the emulation reads, for tools without flatbuffers."""

import dataclasses
from typing import Any

from tfcq.integer.lite_file import LiteFile, Tensor


def described(file: LiteFile) -> dict[str, Any]:
    """Returns the tensors and operations of a file as numbers and text.

    A quantized tensor stands for (level - zero point) * scale, along `axis` where there are
    several scales.

    Args:
        file: the file.
    """
    return {
        "inputs": file.inputs,
        "outputs": file.outputs,
        "tensors": [_tensor(one) for one in file.tensors],
        "operations": [dataclasses.asdict(one) for one in file.operations],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
    }
    if len(tensor.scales):
        found["scales"] = tensor.scales.tolist()
        found["zero_points"] = tensor.zero_points.tolist()
        found["axis"] = tensor.axis
    if tensor.data is not None:
        found["values"] = tensor.data.tolist()
    return found
