"""Classifiers of the user's, scored as they are on the pixels that they take."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tests.evaluation.evaluations import config_of
from tfcq.data.pipeline import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation.run import evaluate
from tfcq.settings.training import DataSettings


def classifier(path, *first, factor=1.0):
    """Saves a classifier of the digits that was fitted on pixels * factor, and its accuracy."""
    keras.utils.set_random_seed(0)
    source = open_source(DataSettings())
    images, labels = labelled_arrays(source.split("train"), 8)
    body = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *first, *body])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, ["accuracy"])
    model.fit(factor * images, labels, batch_size=32, epochs=3, verbose=0)
    test, labels = labelled_arrays(source.split("test"), 8)
    model.save(path)
    return model.evaluate(factor * test, labels, verbose=0)[1]


def scored(path, folder, **flags):
    config = config_of(
        model=str(path), dataset="digits", protocol="classifier", bits="fp,8w8a",
        output_dir=str(folder), **flags,
    )  # fmt: skip
    (measured,) = evaluate(config)
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
