"""The other forms of a network compute what it computes."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.deployment.formats import Export, write_format
from tfcq.errors import UserError
from tfcq.integer.form import deployable
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.deployment import FORMATS, PUBLIC_FORMATS


@pytest.fixture(scope="module")
def files(network, images, tmp_path_factory):
    """By format, what is written twice into one folder."""
    form = deployable(network)
    calibrate(form, images)
    file = written(form, BitWidth(4, 8)).file
    labels = [f"c{n}" for n in range(file.tensors[file.outputs[0]].shape[-1])]
    place = tmp_path_factory.mktemp("forms") / "int8_4w8a"
    export = Export(place, place.with_name("float"), file, network, labels)
    names = [name for name in FORMATS if name not in ("onnx", *PUBLIC_FORMATS)]
    for _ in range(2):
        found = {name: write_format(name, export) for name in names}
    assert {path for paths in found.values() for path in paths} == set(place.parent.iterdir())
    return file, found


def test_float_forms_compute_the_float_network(files, network, images):
    _, found = files
    expected = network(images)
    (path,) = found["keras"]
    model = keras.saving.load_model(path)
    assert not any(isinstance(one, keras.layers.BatchNormalization) for one in model.layers)
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4)
    (path,) = found["saved_model"]
    loaded = tf.saved_model.load(str(path))
    served = loaded.serve(images)
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-4)


def test_c_holds_the_bytes_and_json_the_integers(files):
    file, found = files
    source, header = (path.read_text() for path in found["c"])
    numbers = source[source.index("= {") + 3 : source.index("}")].split(",")
    assert bytes(int(n) for n in numbers if n.strip()) == file.to_bytes()
    assert f"#define INT8_4W8A_LABELS {file.tensors[file.outputs[0]].shape[-1]}" in header
    (path,) = found["json"]
    read = json.loads(path.read_text())
    assert read["labels"][0] == "c0" and len(read["operations"]) == len(file.operations)


@pytest.fixture
def export(network, tmp_path):
    return Export(tmp_path / "int8", tmp_path / "float", None, network)


def test_a_network_of_layers_of_ours_is_no_keras_file_of_its_own(export):
    inputs = keras.Input((8, 8, 1))
    sliced = keras.Model(inputs, keras.layers.Flatten()(inputs[:, ::2]))
    with pytest.raises(UserError, match="is a Slices here.*; allowed: --format=saved_model"):
        write_format("keras", dataclasses.replace(export, model=sliced))
    assert list(export.place.parent.iterdir()) == []


def test_onnx_computes_the_float_network(export, network, images):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    (path,) = write_format("onnx", export)
    session = onnxruntime.InferenceSession(path)
    (taken,) = session.get_inputs()
    (found,) = session.run(None, {taken.name: images})
    np.testing.assert_allclose(found, network(images), rtol=1e-4, atol=1e-4)
