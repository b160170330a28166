"""The linear probe: what it is given, and what it must not see."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import (
    TRAINING,
    asking,
    config_of,
    flags_of,
    on_features,
    tiny_evaluation,
    with_model,
)
from tfcq.evaluation import run
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.protocols import linear
from tfcq.nn.quantizable import quantizable


@pytest.fixture
def evaluation():
    return tiny_evaluation()


@pytest.fixture
def called(evaluation, monkeypatch):
    """Returns a function from what is replaced and flags to the arguments it was called with."""

    def given(function, returned=(), **flags):
        calls = []
        with monkeypatch.context() as patched:
            patched.setattr(linear, function, lambda *given: calls.append(given) or returned)
            asked = dataclasses.replace(evaluation, config=config_of(bits="fp", **flags))
            list(run.measure(asked))
        return calls[0]

    return given


def test_probe_is_trained_as_asked_for_and_as_its_preset_says(called):
    class Probe:
        logits = staticmethod(lambda test: np.zeros((len(test), 2)))

    flags = {"epochs": 7, "batch_size": 4, "learning_rate": 0.3, "seed": 5}
    arguments = called("fit_linear_probe", Probe, **flags)
    assert arguments[2:] == (2, 7, 0.3, 0.9, 4, 5)

    def scorer(*arguments):
        return Accuracy("fp", 0.5, 0.5, 0.5)

    for flags, expected, standardized in (
        ({"preset": "ssql"}, (100, 256), False),
        ({"optimizer": "lars"}, (60, 256), True),
        ({"weight_decay": 0.1, "epochs": 3}, (3, 256), True),
    ):
        _, training, scaled = called("on_cached_features", scorer, **flags)
        assert (training.epochs, training.batch_size) == expected
        assert scaled == standardized


def test_probe_on_augmented_images_gets_what_was_asked_for(called, evaluation):
    given, training, standardized = called(
        "on_augmented_images", **flags_of("linear", "features"), from_scratch=True
    )
    assert standardized and training.epochs == 60
    kernels = [
        model.get_layer("conv").kernel.numpy() for model in (given.backbone, evaluation.backbone)
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_a_feature_that_wakes_up_in_the_test_images_does_not_decide(evaluation):
    """A channel that is zero on all training images, as at few bits, says nothing."""
    inputs = keras.Input((2, 2, 2))
    features = keras.layers.GlobalAveragePooling2D(name="features")(inputs)
    identity = keras.layers.Dense(2, kernel_initializer="identity", name="identity")(features)
    backbone = quantizable(keras.Model(inputs, identity), "uniform")

    def with_second(images, value):
        return np.concatenate([images, np.full_like(images, value)], axis=-1)

    data = dataclasses.replace(
        evaluation.data,
        train_images=with_second(evaluation.data.train_images, 0),
        test_images=with_second(evaluation.data.test_images, 0.01),
    )
    evaluation = asking(with_model(evaluation, backbone), bits="fp")
    evaluation = dataclasses.replace(evaluation, data=data, calibration_images=data.train_images)
    (found,) = on_features(evaluation, linear.on_cached_features(evaluation, TRAINING, True))
    assert found.top1 == 0.75
