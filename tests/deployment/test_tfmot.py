"""Fine-tuning by tensorflow-model-optimization, in a process with another Keras."""

import importlib.util
import pathlib
import subprocess
import types

import keras
import numpy as np
import pytest

from tfcq.deployment import tfmot
from tfcq.deployment.tfmot import tfmot_tflite
from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.ReLU(6.0)(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x), name="small")


@pytest.fixture(scope="module")
def labelled():
    """Images that are bright in one half or the other."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 128)
    images = rng.integers(0, 128, (128, 8, 8, 1))
    images[labels == 1] += 127
    return (images / 255).astype(np.float32), labels


def test_a_network_is_trained_in_simulated_int8_and_written(classifier, labelled):
    for name in ("tensorflow_model_optimization", "tf_keras"):
        # Its import would choose a Keras for this process too.
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    images, labels = labelled
    tuned = tfmot_tflite(
        classifier, images, labels, epochs=6, learning_rate=0.05, test_images=images
    )
    assert tuned.difference < 1e-5
    assert tuned.losses[-1] < 0.7 * tuned.losses[0]
    assert tuned.last_top1 > 0.9 > tuned.first_top1
    file = LiteFile.read(tuned.content)
    (taken, returned) = (file.tensors[i] for i in (*file.inputs, *file.outputs))
    assert (taken.dtype, taken.shape, taken.zero_points.tolist()) == ("uint8", (1, 8, 8, 1), [0])
    np.testing.assert_allclose(taken.scale, 1 / 255, rtol=1e-6)
    assert returned.dtype == "float32"
    inner = [o for o in file.operations if o.kind not in ("QUANTIZE", "DEQUANTIZE")]
    assert {file.tensors[i].dtype for o in inner for i in o.outputs} == {"int8"}
    outputs = LiteModel(tuned.content)(images)
    assert np.mean(outputs.argmax(axis=1) == tuned.simulated.argmax(axis=1)) > 0.98
    assert keras.__version__.startswith("3.")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 0}, "epochs=0 was received; allowed: above 0"),
        ({"batch_size": 0}, "batch_size=0 was received"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 was received"),
        ({"learning_rate": np.nan}, "learning_rate=nan was received"),
        ({"labels": np.zeros(3, int)}, r"shape \(3,\) .* one for each of the 128 images"),
        ({"labels": np.zeros((128, 2), int)}, r"shape \(128, 2\) were received"),
        ({"labels": np.zeros(128)}, "Labels of type float64"),
        ({"labels": np.full(128, 2)}, "Label 2 was received; allowed: 0 to 1, as model 'small'"),
        ({"images": np.zeros((128, 4, 8, 1), "float32")}, r"shape \(128, 4, 8, 1\)"),
        ({"images": np.zeros((128, 8, 8, 1), "uint8")}, "Images of type uint8"),
        ({"images": np.full((128, 8, 8, 1), 255.0)}, "Images from 255 to 255 .* from 0 to 1"),
        ({"images": np.full((128, 8, 8, 1), np.nan)}, "Images from nan to nan"),
        ({"images": np.zeros((0, 8, 8, 1)), "labels": np.zeros(0, int)}, "No image was received"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_at_once(
    classifier, labelled, change, told, monkeypatch
):
    monkeypatch.setattr(subprocess, "run", None)
    given = {"images": labelled[0], "labels": labelled[1], **change}
    with pytest.raises(UserError, match=told):
        tfmot_tflite(classifier, **given)


def test_without_the_package_a_plain_hint(classifier, labelled, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorflow-model-optimization tf_keras"):
        tfmot_tflite(classifier, *labelled)


@pytest.mark.parametrize(
    ("error", "stderr", "told"),
    [
        ("RuntimeError: Layer tanh is not supported.", "a\nb", "Layer tanh is not supported."),
        (None, "first\nOut of memory\n", "Out of memory"),
        (None, "", "no word"),
    ],
)
def test_what_went_wrong_apart_is_told_in_one_line(
    classifier, labelled, monkeypatch, error, stderr, told
):
    def run(command, env, **others):
        assert env["TF_USE_LEGACY_KERAS"] == "1"
        folder = pathlib.Path(command[-1])
        assert {path.name for path in folder.iterdir()} == {"network.json", "arrays.npz"}
        if error:
            (folder / "error.txt").write_text(error)
        return types.SimpleNamespace(returncode=2, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(
        UserError, match=r"^tensorflow-model-optimization \(exit 2\): .*$"
    ) as raised:
        tfmot_tflite(classifier, *labelled)
    assert str(raised.value).endswith(told)


def test_a_description_holds_no_more_than_what_a_layer_computes(classifier):
    network, weights = tfmot._described(classifier)
    kinds = [one["kind"] for one in network["layers"]]
    assert "BatchNormalization" not in kinds
    first = network["layers"][kinds.index("Conv2D")]
    assert first["config"]["filters"] == 8
    assert first["config"]["use_bias"] is True
    assert not [n for n in first["config"] if "initializer" in n or n == "dtype"]
    assert weights[f"{first['name']}/0"].shape == (3, 3, 1, 8)
