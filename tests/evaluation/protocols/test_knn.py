"""Nearest neighbours: against a naive double loop, by hand, and as asked for."""

import dataclasses

import keras
import numpy as np

from tests.evaluation.evaluations import (
    EXPECTED,
    config_of,
    figures,
    on_features,
    tiny_evaluation,
    with_model,
)
from tfcq.evaluation import run
from tfcq.evaluation.protocols import knn
from tfcq.evaluation.protocols.knn import knn_scores
from tfcq.evaluation.sweep import by_scores
from tfcq.nn.quantizable import quantizable


def test_nearest_neighbours_match_a_naive_double_loop():
    random = np.random.default_rng(0)
    known, queries = random.normal(size=(12, 3)), random.normal(size=(4, 3))
    # No neighbour is of class 1.
    labels = random.choice([0, 2, 3], 12)
    expected = np.zeros((4, 4))
    for row, query in enumerate(queries):
        similarity = [k @ query / np.linalg.norm(k) / np.linalg.norm(query) for k in known]
        for index in np.argsort(similarity)[-5:]:
            expected[row, labels[index]] += np.exp(similarity[index] / 0.1)
    expected /= expected.sum(1, keepdims=True)
    found = knn_scores(known, labels, queries, 4, neighbours=5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hand_set_network_gives_the_hand_computed_accuracy_under_nearest_neighbours():
    """Features are brightness and darkness, so that the angle between images follows brightness."""
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Conv2D(2, 1, name="conv")(inputs)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))
    kernel = np.array([1.0, -1.0]).reshape(1, 1, 1, 2)
    network.get_layer("conv").set_weights([kernel, np.array([0.0, 1.0])])
    evaluation = with_model(tiny_evaluation(), quantizable(network, "uniform"))

    def nearest(train, labels, test, classes):
        return knn_scores(train, labels, test, classes, neighbours=3)

    assert figures(on_features(evaluation, by_scores(nearest, evaluation.data))) == EXPECTED


def test_neighbours_vote_as_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(
        knn, "knn_scores", lambda *given: calls.append(given) or np.eye(2)[[0, 0, 0, 1]]
    )
    config = config_of(bits="fp", protocol="knn", neighbours=3, temperature=0.5)
    list(run.measure(dataclasses.replace(tiny_evaluation(), config=config)))
    (arguments,) = calls
    assert arguments[3:] == (2, 3, 0.5)
