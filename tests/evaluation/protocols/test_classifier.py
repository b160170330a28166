"""Classifiers of the user's, scored as they are on the pixels that they take."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import source_from
from tfcq.errors import UserError
from tfcq.evaluation.run import evaluate
from tfcq.settings.evaluation import evaluation_from_flat
from tfcq.settings.training_groups import DataSettings


def classifier(path, *first, factor=1.0):
    """Saves a classifier of the digits that was fitted on pixels * factor, and its accuracy."""
    keras.utils.set_random_seed(0)
    source = source_from(DataSettings())
    images, labels = labelled_arrays(source.split("train"), 8)
    body = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *first, *body])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(factor * images, labels, batch_size=32, epochs=3, verbose=0)
    test, labels = labelled_arrays(source.split("test"), 8)
    model.save(path)
    return model.evaluate(factor * test, labels, verbose=0)[1]


def scored(path, folder, **flags):
    values = {"model": str(path), "dataset": "digits", "output_dir": str(folder)}
    values |= {"protocol": "classifier", "bits": "fp,8w8a"}
    config = evaluation_from_flat(values | flags)
    measured, *_ = evaluate(config)
    return [result.top1 for result in measured.results], json.loads(measured.file.read_text())


def test_a_classifier_is_scored_on_the_pixels_that_its_first_layer_takes(tmp_path):
    path = tmp_path / "scaled.keras"
    own = classifier(path, layers.Rescaling(1 / 255), factor=255.0)
    (top1, quantized), record = scored(path, tmp_path)
    assert own > 0.8
    np.testing.assert_allclose(top1, own, atol=0.003)
    assert abs(quantized - own) < 0.03
    assert record["input_range"] == "0-255"


def test_pixels_that_nothing_tells_are_not_guessed_against_the_evidence(tmp_path):
    path = tmp_path / "raw.keras"
    own = classifier(path, layers.BatchNormalization(), factor=255.0)
    with pytest.raises(UserError, match=r"in 0-1 its top-1 is .*; pass --input_range=0-255 "):
        scored(path, tmp_path)
    (top1, _), record = scored(path, tmp_path, input_range="0-255")
    np.testing.assert_allclose(top1, own, atol=0.003)
    assert record["input_range"] == "0-255"


def test_few_training_images_set_ranges_though_no_protocol_could_learn_from_them(tmp_path):
    path = tmp_path / "scaled.keras"
    own = classifier(path, layers.Rescaling(1 / 255), factor=255.0)
    (top1, _), record = scored(path, tmp_path, train_images=5)
    np.testing.assert_allclose(top1, own, atol=0.003)
    assert record["calibration"]["images"] == record["train_images"] == 5
    with pytest.raises(UserError, match="has 0 training images; allowed: 2 and above"):
        scored(path, tmp_path, train_images=5, protocol="classifier,knn")


def test_below_8_bits_the_steps_are_those_that_help_unless_others_are_asked_for(tmp_path):
    path = tmp_path / "scaled.keras"
    classifier(path, layers.Rescaling(1 / 255), factor=255.0)
    bits = "fp,8w8a,4w4a,2w4a"
    chosen, record = scored(path, tmp_path / "chosen", bits=bits)
    plain, printed = scored(path, tmp_path / "plain", bits=bits, calibration="minmax")
    steps = {entry["bits"]: entry.get("steps") for entry in record["results"]}
    few = "mse ranges, correct biases"
    assert steps == {"fp": None, "8w8a": "minmax ranges", "4w4a": few, "2w4a": few}
    assert {entry.get("steps") for entry in printed["results"]} == {None, "minmax ranges"}
    assert chosen[:2] == plain[:2]
    assert chosen[3] > plain[3]
    # Neither another protocol beside it nor which images set the ranges is a step asked for.
    flags = {"protocol": "classifier,knn", "calibration_images": 1000, "bits": "4w4a,2w4a"}
    beside, record = scored(path, tmp_path / "beside", **flags)
    assert {entry["steps"] for entry in record["results"]} == {few}
    assert beside == chosen[2:]
    _, record = scored(path, tmp_path / "drawn", bits="4w4a", calibration_seed=1)
    assert record["results"][0]["steps"] == few
