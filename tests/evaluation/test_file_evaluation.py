"""A TFLite file is scored on each set of kernels as what LiteRT makes of the images."""

import json
import re
import sys
import types

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import command_of
from tests.integer.lite_files import chain, constant, levels, real
from tests.integer.test_micro import Fake
from tfcq import evaluate, features
from tfcq.backbones.resnet import resnet
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.deployment.tflite import float_tflite, int8_tflite
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import accuracy_of
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols.knn import knn_scores
from tfcq.integer.runtime import LiteModel
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.settings.kernels import KERNELS

TRAIN, TEST, CLASSES = 300, 200, 10


@pytest.fixture(scope="module")
def digits():
    """Training images and labels, and test images and labels."""
    source = open_source("digits")
    train = labelled_arrays(source.split("train").first(TRAIN), 8)
    return *train, *labelled_arrays(source.split("test").first(TEST), 8)


@pytest.fixture(scope="module")
def content(digits):
    """A file of a small backbone, which rounds otherwise on every set of kernels."""
    keras.utils.set_random_seed(0)
    model = quantizable(resnet(18, "cifar", 8, (8, 8, 1), blocks=(1, 1)), "paper")
    calibrate(model, digits[0])
    return int8_tflite(model, digits[0])


@pytest.fixture
def place(tmp_path, content):
    """Flags of an evaluation of the file."""
    file = tmp_path / "backbone.tflite"
    file.write_bytes(content)
    return {"model": file, "dataset": "digits", "train_images": TRAIN, "test_images": TEST,
            "output_dir": tmp_path / "out"}  # fmt: skip


def found(place, name):
    return json.loads((place["output_dir"] / f"{name}.json").read_text())


def test_every_column_is_what_protocols_find_in_litemodels_outputs(place, content, digits):
    evaluate.main(command_of(**place, protocol="linear,knn", kernels=",".join(KERNELS)))
    images, labels, test, test_labels = digits
    seen = []
    for number, kernels in enumerate(KERNELS):
        model = LiteModel(content, kernels=kernels)
        train, tested = model(images), model(test)
        seen.append(tested)
        probe = fit_linear_probe(train, labels, CLASSES, 60, 0.1, 0.9, 256, 0)
        scores = {
            "linear": probe.logits(tested), "knn": knn_scores(train, labels, tested, CLASSES),
        }  # fmt: skip
        for protocol, expected in scores.items():
            accuracy = accuracy_of(expected, test_labels, kernels)
            assert found(place, f"{protocol}_kernels")["results"][number] == {
                "kernels": kernels, "top1": accuracy.top1, "top5": accuracy.top5,
                "mean_per_class": accuracy.mean_per_class,
            }  # fmt: skip
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 0 < np.mean(seen[one] != seen[other]) < 1


def test_table_record_and_picture_tell_the_kernels_and_the_runtime(place, capsys, monkeypatch):
    from tfcq.reporting import plots

    drawn = []
    monkeypatch.setattr(plots, "plot_accuracy", lambda *a, **named: drawn.append((a, named)))
    evaluate.main(command_of(**place, protocol="knn", kernels="reference, xnnpack"))
    printed = capsys.readouterr().out
    assert "backbone.tflite takes pixels in 0-1, as uint8 of scale 0.003922.\n" in printed
    assert "| kernels          | reference | xnnpack |\n" in printed
    record = found(place, "knn_kernels")
    version = record["versions"]["ai_edge_litert"]
    assert f"Runtime: ai-edge-litert {version}\n" in printed
    assert (record["policy"], record["subject"]) == ("the file's own", str(place["model"]))
    assert not {"calibration", "quantization"} & set(record)
    ((arguments, named),) = drawn
    assert (arguments[1], named["heading"]) == (["reference", "xnnpack"], "kernels")
    plots.draw_accuracy(arguments[1], arguments[2], heading=named["heading"])


def test_kernels_measured_later_are_a_column_beside_and_another_file_a_record_of_its_own(place):
    file = place["model"]
    evaluate.main(command_of(**place, protocol="knn"))
    evaluate.main(command_of(**place, protocol="knn", kernels="optimized"))
    first = found(place, "knn_kernels")
    assert [entry["kernels"] for entry in first["results"]] == ["xnnpack", "optimized"]
    assert first["earlier"] == []
    # Another byte behind the model: the same outputs of another file.
    file.write_bytes(file.read_bytes() + b"\0")
    evaluate.main(command_of(**place, protocol="knn", kernels="xnnpack"))
    second = found(place, "knn_kernels")
    assert second["results"] == first["results"][:1] and len(second["earlier"]) == 1
    assert second["weights"] != first["weights"]


def centroids(factor, digits):
    """Returns a classifier without training: the nearest mean of a class, of scaled pixels."""
    images, labels = digits[0] * factor, digits[1]
    means = np.stack([images[labels == label].mean(axis=0) for label in range(CLASSES)])
    inputs = keras.Input((8, 8, 1))
    layer = keras.layers.Dense(CLASSES)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    means = means.reshape(CLASSES, -1)
    layer.set_weights([2 * means.T, -np.sum(means**2, axis=1)])
    return float_tflite(model)


def test_a_classifier_is_scored_by_its_own_outputs(place, digits):
    content = centroids(1, digits)
    place["model"].write_bytes(content)
    evaluate.main(command_of(**place, protocol="classifier", kernels="xnnpack,reference"))
    results = found(place, "classifier_kernels")["results"]
    expected = accuracy_of(LiteModel(content)(digits[2]), digits[3], "xnnpack")
    assert expected.top1 > 0.8
    assert [entry["top1"] for entry in results] == [expected.top1] * 2


def test_a_float_file_of_other_pixels_is_told_or_tried(place, digits):
    place["model"].write_bytes(centroids(255, digits))
    with pytest.raises(UserError, match="Nothing in .*backbone.tflite tells .*--input_range=0-255"):
        evaluate.main(command_of(**place, protocol="classifier"))
    evaluate.main(command_of(**place, protocol="classifier", input_range="0-255"))
    record = found(place, "classifier_kernels")
    assert record["input_range"] == "0-255" and record["results"][0]["top1"] > 0.8


def test_features_without_as_many_logits_as_classes_are_no_classifier(place):
    with pytest.raises(UserError, match=r"returns shape \(1, 16\) and the data have 10 classes"):
        evaluate.main(command_of(**place, protocol="classifier"))


def test_scores_that_are_taken_for_features_are_told(place, digits, capsys):
    told = "returns 10 numbers, as many as there are classes; .*: --protocol=classifier "
    evaluate.main(command_of(**place, protocol="knn"))
    assert not re.search(told, capsys.readouterr().out)
    keras.utils.set_random_seed(0)
    body = [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = quantizable(keras.Sequential([keras.Input((8, 8, 1)), *body]), "paper")
    calibrate(model, digits[0])
    place["model"].write_bytes(int8_tflite(model, digits[0]))
    for protocol in ("knn", "classifier"):
        evaluate.main(command_of(**place | {"output_dir": place["model"].parent / protocol},
                                 protocol=protocol))  # fmt: skip
        assert bool(re.search(told, capsys.readouterr().out)) == (protocol == "knn")


def test_a_linear_classifier_is_trained_on_features_of_a_file_with_any_preset(place):
    evaluate.main(
        command_of(**place, preset="ssql", epochs=3, milestones="2epochs", kernels="reference")
    )
    (entry,) = found(place, "linear_kernels")["results"]
    assert entry["kernels"] == "reference" and len(entry["curve"]) == 3
    assert entry["top1"] == entry["curve"][-1]["top1"]


def test_microcontrollers_kernels_are_a_column_or_a_hint(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(UserError, match="pip install --pre tflite-micro"):
        evaluate.main(command_of(**place, protocol="knn", kernels="xnnpack,micro"))
    assert not place["output_dir"].exists()
    runtime = types.SimpleNamespace(Interpreter=Fake)
    monkeypatch.setitem(sys.modules, "tflite_micro", types.SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(Fake, "from_bytes", classmethod(lambda cls, content, arena_size: cls()))
    place["model"].write_bytes(pixels(levels((1, 8, 8, 1), 1 / 255, 0, "uint8")).to_bytes())
    evaluate.main(command_of(**place, protocol="knn", kernels="xnnpack,micro"))
    entries = found(place, "knn_kernels")["results"]
    assert [entry["kernels"] for entry in entries] == ["xnnpack", "micro"]
    # It doubles the pixels, which turns no feature.
    assert entries[1]["top1"] == entries[0]["top1"] > 0.8
    assert "tflite-micro" in capsys.readouterr().out


def test_features_of_a_file_are_litemodels_outputs(place, content, digits):
    arguments = [f"--{name}={value}" for name, value in place.items()]
    command = features.flag_set().parse([*arguments, "--kernels=xnnpack,reference"])
    features.main(command)
    arrays = np.load(place["output_dir"] / "features.npz")
    for kernels in ("xnnpack", "reference"):
        model = LiteModel(content, kernels=kernels)
        expected = np.concatenate([model(digits[0]), model(digits[2])])
        np.testing.assert_array_equal(arrays[kernels], expected)
        assert (place["output_dir"] / f"features_{kernels}.csv").is_file()
    with pytest.raises(UserError, match="features.npz exists; move it away"):
        features.main(command)


def pixels(source):
    """Returns a file whose features are the pixels as it takes them."""
    shape = [int(np.prod(source.shape[:1])), int(np.prod(source.shape[1:]))]
    flat = levels(shape, 1, dtype=source.dtype, name="flat")
    flat.scales, flat.zero_points = source.scales, source.zero_points
    target = constant(np.array(shape, np.int32))
    return chain(source, ("RESHAPE", [source, target], [flat], {"newShape": shape}, 1))


def opened(place, file, **flags):
    from tfcq.evaluation.file_subject import open_file

    place["model"].write_bytes(file if isinstance(file, bytes) else file.to_bytes())
    return open_file(evaluate.config_of(command_of(**place, **flags)))


# The input's type, scale and zero point, and the pixels that stand on its grid.
GRIDS = [
    ("uint8", 1 / 255, 0, "0-1"), ("int8", 1 / 255, -128, "0-1"), ("int16", 1 / 32767, 0, "-1-1"),
    ("int8", 1.0, -128, "0-255"), ("uint8", 1.0, 0, "0-255"), ("int8", 1 / 127.5, 0, "-1-1"),
    ("uint8", 1 / 127.5, 128, "-1-1"), ("uint8", 0.85 / 255, 0, "0-1"),
    ("int8", 220 / 255, -128, "0-255"), ("int8", 1.9 / 255, -4, "-1-1"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "scale", "zero_point", "expected"), GRIDS)
def test_the_grid_of_the_input_tells_the_pixels(place, dtype, scale, zero_point, expected):
    subject = opened(place, pixels(levels((1, 4, 4, 1), scale, zero_point, dtype)))
    assert (subject.input_range, subject.assumed_range) == (expected, False)
    low, high = (float(end) for end in expected.rsplit("-", 1))
    # Short of the ends, where calibration found no pixel.
    images = np.random.default_rng(0).uniform(0.1, 0.8, (300, 4, 4, 1)).astype(np.float32)
    given = images.reshape(300, -1) * (high - low) + low
    assert np.max(np.abs(subject.features(images, "xnnpack") - given)) <= 0.501 * scale


def test_pixels_without_a_scale_are_those_of_image_files(place):
    source = levels((1, 4, 4, 1), 1, 0, "uint8")
    source.scales, source.zero_points = source.scales[:0], source.zero_points[:0]
    flat, target = levels((1, 16), 1, 0, "uint8"), constant(np.array([1, 16], np.int32))
    file = chain(source, ("RESHAPE", [source, target], [flat], {"newShape": [1, 16]}, 1))
    subject = opened(place, file)
    images = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        subject.features(images, "xnnpack")[0], np.round(images.ravel() * 255)
    )


def test_pixels_of_no_range_are_refused_unless_told(place):
    file = pixels(levels((1, 4, 4, 1), 4.7 / 255, -14, "int8"))
    with pytest.raises(UserError, match=r"takes numbers from -2.1 to 2.6 .*0-1, 0-255, -1-1; .*"):
        opened(place, file)
    assert opened(place, file, input_range="-1-1").input_range == "-1-1"


def test_pixels_that_the_grid_of_the_input_does_not_hold_are_refused(place):
    file = pixels(levels((1, 4, 4, 1), 1 / 255, 0, "uint8"))
    with pytest.raises(UserError, match="takes pixels in 0-1 by the scale of its input, not 0-255"):
        opened(place, file, input_range="0-255")


def test_a_float_file_is_assumed_to_take_pixels_to_1(place, capsys):
    assert opened(place, pixels(real((1, 4, 4, 1)))).assumed_range
    assert "in 0-1, assumed since its input does not tell; see --input_range" in (
        capsys.readouterr().out
    )


def two_ends(inputs):
    """Returns a file of one input and two outputs, or the other way round."""
    file = pixels(real((1, 4, 4, 1)))
    file.inputs, file.outputs = ([0, 1], file.outputs) if inputs else ([0], [1, 2])
    return file


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (lambda: two_ends(True), "has 2 inputs and 1 outputs; allowed: one of each"),
        (lambda: two_ends(False), "has 1 inputs and 2 outputs; allowed: one of each"),
        (lambda: pixels(real((1, 16))), r"turns shape \[1, 16\] into \[1, 16\]; allowed: \[images"),
        (lambda: pixels(levels((1, 4, 4, 1), 1, 0, "int32")), "takes int32; allowed: .*float32"),
        (lambda: b"", r"backbone.tflite is no TFLite model \(0 bytes\); allowed: a .tflite"),
        (lambda: b"PK\3\4" * 99, "backbone.tflite is no TFLite model"),
        (lambda: pixels(real((1, 4, 4, 1))).to_bytes()[:90], "backbone.tflite is damaged or cut"),
    ],
)  # fmt: skip
def test_what_is_no_network_of_images_is_told_in_a_line(place, file, text):
    with pytest.raises(UserError, match=text) as told:
        opened(place, file())
    assert "\n" not in str(told.value)


def test_outputs_without_a_scale_are_no_features(place):
    file = pixels(levels((1, 4, 4, 1), 1 / 255, 0, "uint8"))
    file.tensors[file.outputs[0]].scales = np.zeros(0, np.float32)
    with pytest.raises(UserError, match="returns uint8 without a scale; allowed: float32, or int8"):
        opened(place, file)


def test_features_that_are_no_numbers_name_file_and_kernels(place):
    subject = opened(place, pixels(real((1, 4, 4, 1))), kernels="optimized")
    with pytest.raises(UserError, match="backbone.tflite on optimized kernels hold NaN or inf"):
        subject.features(np.full((1, 4, 4, 1), np.nan, np.float32), "optimized")


def test_an_operation_that_kernels_lack_is_told_before_anything_is_scored(place):
    source, made = real((1, 8, 8, 1)), real((1, 64))
    flat, target = real((1, 64)), constant(np.array([1, 64], np.int32))
    file = chain(
        source,
        ("RESHAPE", [source, target], [flat], {"newShape": [1, 64]}, 1),
        ("ELU", [flat], [made], {}, 1),
    )
    place["model"].write_bytes(file.to_bytes())
    with pytest.raises(UserError, match="the file on reference kernels: .*'ELU'"):
        evaluate.main(command_of(**place, protocol="knn", kernels="xnnpack,reference"))
    assert not place["output_dir"].exists()
