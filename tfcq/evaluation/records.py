"""The results file of a protocol: the newest evaluation, and every earlier one of other settings.

    {"dataset": ..., "protocol": ..., "results": [{"bits": "4w8a", "top1": ..., ...}, ...],
     ...settings, data fingerprint, seed, versions..., "earlier": [the same form, newest first]}

Two evaluations that differ in nothing but their bit-widths are one. Results of a TFLite file have
`"kernels"` in place of `"bits"`.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.data.image_stream import ImageStream
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.files import alone_in, read_text, write_text
from tfcq.parsing import check_form, parse_json
from tfcq.settings.backbones import UNIT_RANGE
from tfcq.settings.bitwidths import parse_bit_width

# Set by each evaluation's own calibration.
_RANGES = ("minimum", "maximum", "range_bits", "trained_quantized")
_READ_TOGETHER = 256
_RESULTS, _EARLIER = "results", "earlier"
# The last two follow from the data, and records of before they were kept lack them.
_NO_SETTINGS = (_RESULTS, _EARLIER, "classes", "majority_share")
# Records of before it was kept are of networks that take pixels from 0 to 1.
_USUAL = {"input_range": UNIT_RANGE}
_SHARES = dict.fromkeys(("top1", "top5", "mean_per_class"), float)
# What is read of a record again.
_FORM = {
    _RESULTS: [
        {"bits": str, "kernels": str, **_SHARES, "curve": [{"epoch": float, "top1": float}]}
    ],
    "versions": {"*": str},
}


def data_fingerprint(data: LabelledImages) -> str:
    """Returns a text that is the same for the same images and labels in the same order.

    Args:
        data: the images and labels.
    """
    digest = hashlib.sha256()
    for array in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        digest.update(repr((array.shape, str(array.dtype))).encode())
        parts = array.batches(_READ_TOGETHER) if isinstance(array, ImageStream) else (array,)
        for part in parts:
            digest.update(np.ascontiguousarray(part))  # type: ignore[arg-type]
    return digest.hexdigest()[:16]


def weights_fingerprint(model: keras.Model) -> str:
    """Returns a text that is the same for the same weights, apart from activation ranges.

    Args:
        model: the model.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        if weight.name not in _RANGES:
            digest.update(repr((weight.path, tuple(weight.shape))).encode())
            digest.update(np.ascontiguousarray(weight.numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    return {
        "tfcq": importlib.metadata.version("tfcq"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def read_records(file: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the evaluations in a results file, newest first; none if there is no file.

    Args:
        file: the file.

    Raises:
        UserError: when it cannot be read as one.
    """
    file = pathlib.Path(file)
    if not file.exists():
        return []
    try:
        newest = parse_json(read_text(file), str(file))
        records = [newest, *newest.pop(_EARLIER, [])] if newest[_RESULTS] else []
        check_form(records, [_FORM], str(file))
        for entry in (entry for record in records for entry in record[_RESULTS]):
            float(entry["top1"])
            if "kernels" not in entry:
                parse_bit_width(entry["bits"])
        return records
    except (KeyError, TypeError, AttributeError, UserError) as error:
        why = f" ({error})" if isinstance(error, UserError) else ""
        raise UserError(
            f"{file} cannot be read as results of an evaluation{why}; move it away to evaluate "
            "again."
        ) from None


def column_of(entry: dict[str, Any]) -> str:
    """Returns the bit-width of a result, or of a TFLite file the kernels.

    Args:
        entry: the result.
    """
    return str(entry["kernels"] if "kernels" in entry else entry["bits"])


def settings_of(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what tells a record from those of other evaluations, also where it is an older one.

    Args:
        record: the evaluation.
    """
    return {n: value for n, value in {**_USUAL, **record}.items() if n not in _NO_SETTINGS}


def add_record(file: str | os.PathLike, record: dict[str, Any]) -> dict[str, Any]:
    """Writes an evaluation into a results file and returns it with its earlier bit-widths.

    Args:
        file: the file; made if missing.
        record: the evaluation, without `"earlier"`.

    Raises:
        UserError: when the file holds something else.
    """
    # As JSON gives it back, or else equal settings would differ.
    record = json.loads(json.dumps(record))
    with alone_in(pathlib.Path(file).parent):
        merged, others = record, []
        for other in read_records(file):
            if settings_of(other) != settings_of(record):
                others.append(other)
                continue
            new = {column_of(entry): entry for entry in record[_RESULTS]}
            kept = [new.pop(column_of(entry), entry) for entry in other[_RESULTS]]
            merged = {**record, _RESULTS: [*kept, *new.values()]}
        write_text(file, json.dumps({**merged, _EARLIER: others}, indent=2) + "\n")
    return merged
