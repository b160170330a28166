"""Names of classes inside a TFLite file, where Android's and other standard tools look for them."""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile

# The name of the note, of the packed file, and the identifier, in TFLite's metadata schema.
_NOTE, _FILE, _IDENTIFIER = "TFLITE_METADATA", "labels.txt", b"M001"
_AXIS_LABELS = 2
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def with_labels(file: LiteFile, labels: Sequence[str]) -> bytes:
    """Returns the bytes of a file that names its classes.

    They stand in `labels.txt`, a line each, in an archive behind the model, as TFLite's metadata
    have it: `zipfile.ZipFile("int8.tflite").read("labels.txt")`.

    Args:
        file: the file, whose first output are scores.
        labels: names of the classes, in the order of the scores.

    Raises:
        UserError: on labels of another number than the scores, or with a line break.
    """
    width = file.tensors[file.outputs[0]].shape[-1]
    if len(labels) != width:
        raise UserError(f"{len(labels)} labels were received; allowed: {width}, one a score.")
    check_labels(labels)
    noted = LiteFile(
        file.tensors, file.operations, file.inputs, file.outputs,
        {**file.notes, _NOTE: _metadata(len(file.outputs))},
    )  # fmt: skip
    content = io.BytesIO(noted.to_bytes())
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(_FILE, _LONG_AGO), "\n".join(labels) + "\n")
    return content.getvalue()


def check_labels(labels: Sequence[str]) -> None:
    """Refuses names of classes that a line does not hold.

    Args:
        labels: the names.

    Raises:
        UserError: naming the first.
    """
    for label in labels:
        if len(label.splitlines()) != 1:
            raise UserError(f"Label {label!r} was received; allowed: text of one line.")


def labels_of(content: bytes) -> list[str]:
    """Returns the names of the classes that a file holds; none where it holds none.

    Args:
        content: the bytes of a `.tflite` file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(_FILE).decode().splitlines()
    except (zipfile.BadZipFile, KeyError):
        return []


def _metadata(outputs: int) -> bytes:
    """Returns metadata that name the file of labels of the first output."""
    import flatbuffers

    builder = flatbuffers.Builder(256)
    # By the places of fields in the schema.
    associated = _table(builder, {0: builder.CreateString(_FILE)}, 5, kind=_AXIS_LABELS)
    first = _table(builder, {6: _vector(builder, [associated])}, 7)
    tensors = [first, *(_table(builder, {}, 7) for _ in range(outputs - 1))]
    graph = _table(builder, {3: _vector(builder, tensors)}, 9)
    version = builder.CreateString("1.0.0")
    model = _table(builder, {3: _vector(builder, [graph]), 7: version}, 8)
    builder.Finish(model, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, offsets: dict[int, int], fields: int, kind: int = 0) -> int:
    builder.StartObject(fields)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    builder.PrependInt8Slot(2, kind, 0)
    return builder.EndObject()


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
