"""A TFLite file is scored as it runs, on the kernels that were asked for."""

import importlib.util
import json

import keras
import numpy as np
import pytest

import tfcq
from tests.integer.conftest import randomize_norms
from tfcq import evaluate, features
from tfcq.backbones.resnet import resnet
from tfcq.data.pipeline import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.records import read_records
from tfcq.integer.runtime import LiteModel


@pytest.fixture(scope="module")
def digits():
    source = open_source("digits")
    return [labelled_arrays(source.split(name), 8) for name in ("train", "test")]


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """Files of a small network's features and of a classifier of digits."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("files")
    network = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,))
    randomize_norms(network)
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(network.layers[-2].output))
    models = {"features": network, "logits": keras.Model(network.inputs[0], logits)}
    images = digits[0][0][:64]
    for name, model in models.items():
        form = tfcq.deployable(model)
        tfcq.calibrate(form, images)
        (folder / f"{name}.tflite").write_bytes(tfcq.int8_tflite(form, images))
    network.save(folder / "network.keras")
    return folder


def command(program, *flags):
    return program.flag_set().parse(["--verbosity=1", "--dataset=digits", *flags])


def score(model, output, *flags):
    place = (f"--model={model}", f"--output_dir={output}")
    return evaluate.main(command(evaluate, *place, *flags))


def test_a_classifier_scores_as_its_file_does_on_each_set_of_kernels(files, digits, tmp_path):
    file = files / "logits.tflite"
    kernels = ("reference", "xnnpack", "optimized")
    score(file, tmp_path, "--protocol=classifier", f"--kernels={','.join(kernels)}")
    record = json.loads((tmp_path / "classifier_kernels.json").read_text())
    images, labels = digits[1]
    outputs = {name: LiteModel(file.read_bytes(), kernels=name)(images) for name in kernels}
    assert not np.array_equal(outputs["reference"], outputs["xnnpack"])
    assert [(one["kernels"], one["top1"]) for one in record["results"]] == [
        (name, np.mean(outputs[name].argmax(axis=1) == labels)) for name in kernels
    ]
    assert record["versions"]["ai_edge_litert"] and record["policy"] == "the file's own"
    # A further set of kernels joins those that are there.
    assert len(read_records(tmp_path / "classifier_kernels.json")[0]["results"]) == 3


def test_features_of_a_file_are_probed_as_those_of_a_network(files, digits, tmp_path):
    file = files / "features.tflite"
    score(file, tmp_path, "--protocol=linear")
    (result,) = json.loads((tmp_path / "linear_kernels.json").read_text())["results"]
    lite = LiteModel(file.read_bytes())
    (train, labels), (test, test_labels) = digits
    probe = fit_linear_probe(lite(train), labels, 10)
    found = probe.logits(lite(test)).argmax(axis=1)
    assert (result["kernels"], result["top1"]) == ("xnnpack", np.mean(found == test_labels))


def test_features_of_a_file_are_written_as_it_returns_them(files, digits, tmp_path):
    file = files / "features.tflite"
    place = (f"--model={file}", f"--output_dir={tmp_path}", "--kernels=optimized")
    features.main(command(features, *place))
    written = np.load(tmp_path / "features.npz")
    expected = LiteModel(file.read_bytes(), kernels="optimized")(digits[0][0])
    (name,) = [one for one in written.files if "optimized" in one]
    np.testing.assert_array_equal(written[name][: len(expected)], expected)


@pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is not None, reason="installed")
def test_kernels_of_microcontrollers_say_how_to_have_them(files, tmp_path):
    with pytest.raises(UserError, match="pip install --pre tflite-micro"):
        score(files / "features.tflite", tmp_path, "--kernels=micro")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--bits=4w8a"], "--bits has no effect here: .*features.tflite is run as it is"),
        (["--policy=int8"], "--policy has no effect here"),
        (["--calibration=mse"], "--calibration has no effect here"),
        (["--protocol=finetune"], "finetune trains the network, .* can only be run; allowed .*knn"),
        (["--kernels=xnnpak"], "Unknown kernels 'xnnpak'.*Did you mean 'xnnpack'"),
        (["--kernels=xnnpack,xnnpack"], "'xnnpack' stand twice"),
        (["--features=augmented"], "--features=augmented cannot be had"),
        (["--protocol=classifier"], r"shape \(1, 4\) and the data have 10 classes"),
    ],
)
def test_what_a_file_cannot_do_is_told(files, tmp_path, flags, told):
    with pytest.raises(UserError, match=told):
        score(files / "features.tflite", tmp_path, *flags)


def test_kernels_of_a_network_and_files_that_are_none_are_told(files, tmp_path):
    with pytest.raises(UserError, match="--kernels has no effect here: Keras computes at --bits"):
        score(files / "network.keras", tmp_path, "--kernels=xnnpack")
    content = (files / "features.tflite").read_bytes()
    broken = {
        "cut.tflite": (content[:2000], "is damaged or cut short"),
        "empty.tflite": (b"", "is no TFLite model"),
        "network.tflite": ((files / "network.keras").read_bytes(), "is no TFLite model"),
        "file.keras": (content, "is a TFLite model, which is run as it is; name it .tflite"),
    }
    for name, (data, told) in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=told):
            score(tmp_path / name, tmp_path / "out")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(UserError, match="folder.tflite"):
        score(tmp_path / "folder.tflite", tmp_path / "out")
    assert not (tmp_path / "out").exists()
