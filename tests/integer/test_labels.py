"""Names of classes inside a file, where standard tools find them."""

import io
import zipfile

import numpy as np
import pytest
from flatbuffers.number_types import Int8Flags
from flatbuffers.table import Table

from tfcq.errors import UserError
from tfcq.integer.form import deployable
from tfcq.integer.labels import labels_of, with_labels
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.settings.bitwidths import BitWidth


@pytest.fixture(scope="module")
def file(network, images):
    form = deployable(network)
    calibrate(form, images)
    return written(form, BitWidth(8, 8)).file


def test_a_file_with_labels_computes_the_same(file, images):
    labels = [f"class {n}, größer" for n in range(file.tensors[file.outputs[0]].shape[-1])]
    content = with_labels(file, labels)
    assert labels_of(content) == labels
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["labels.txt"]
    np.testing.assert_array_equal(LiteModel(content)(images), LiteModel(file.to_bytes())(images))
    assert with_labels(file, labels) == content
    assert labels_of(file.to_bytes()) == []
    assert file.notes == {}


def inner(table, field, member=None):
    """Returns the table that a field holds, or the only member of its vector."""
    start = table.Pos + table.Offset(4 + 2 * field)
    if member is not None:
        start = table.Vector(table.Offset(4 + 2 * field)) + 4 * member
    return Table(table.Bytes, table.Indirect(start))


def test_metadata_lead_from_the_first_output_to_the_labels(file):
    width = file.tensors[file.outputs[0]].shape[-1]
    read = LiteFile.read(with_labels(file, list(map(str, range(width)))))
    metadata = read.notes["TFLITE_METADATA"]
    assert metadata[4:8] == b"M001"
    model = Table(bytearray(metadata), int.from_bytes(metadata[:4], "little"))
    # The model's graphs, a graph's outputs, an output's files; of a file its name and kind.
    graph = inner(model, 3, 0)
    associated = inner(inner(graph, 3, 0), 6, 0)
    assert associated.String(associated.Pos + associated.Offset(4)) == b"labels.txt"
    assert associated.Get(Int8Flags, associated.Pos + associated.Offset(8)) == 2


def test_labels_that_do_not_fit_are_refused(file):
    width = file.tensors[file.outputs[0]].shape[-1]
    with pytest.raises(UserError, match=f"2 labels were received; allowed: {width}, one a score"):
        with_labels(file, ["a", "b"])
    for wrong in ("a\nb", ""):
        with pytest.raises(UserError, match="allowed: text of one line"):
            with_labels(file, [wrong] * width)
