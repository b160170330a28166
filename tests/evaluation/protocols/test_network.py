"""Training of the whole network: where it starts, what it trains and what it reports."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import (
    NO_AUGMENTATION,
    TRAINING,
    asking,
    config_of,
    sgd,
    tiny_evaluation,
    with_model,
)
from tfcq.evaluation import run
from tfcq.evaluation.protocols import network
from tfcq.evaluation.protocols.network import finetuned, trained_at_each_bit_width
from tfcq.nn.quantizable import quantizable


@pytest.fixture
def evaluation():
    return tiny_evaluation()


def test_training_from_scratch_forgets_the_backbone(evaluation):
    training = dataclasses.replace(TRAINING, epochs=1, optimizer=sgd(1e-9))
    evaluation, kernels = asking(evaluation, bits="fp"), []
    for from_scratch in (False, True):
        list(
            finetuned(
                evaluation, training, NO_AUGMENTATION, from_scratch=from_scratch,
                keep=lambda bits, one: kernels.append(one.get_layer("conv").kernel.numpy()),
            )
        )  # fmt: skip
    own = evaluation.backbone.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(kernels[0], own, atol=1e-6)
    assert np.abs(kernels[-1] - own).max() > 0.01


def test_random_start_does_not_depend_on_what_was_trained_before(evaluation):
    training = dataclasses.replace(TRAINING, epochs=2)

    def trained(bits):
        return trained_at_each_bit_width(
            asking(evaluation, bits=bits), training, NO_AUGMENTATION, 1.0, from_scratch=True
        )

    (alone,) = trained("4w4a")
    _, behind = trained("fp,4w4a")
    assert [p["loss"] for p in behind.curve] == pytest.approx([p["loss"] for p in alone.curve])


def test_whole_network_is_trained_where_a_model_has_frozen_layers(evaluation):
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(4, trainable=False, name="frozen")(keras.layers.Flatten()(inputs))
    evaluation = with_model(evaluation, quantizable(keras.Model(inputs, x), "uniform"))
    kept = []
    training = dataclasses.replace(TRAINING, epochs=1)
    list(finetuned(evaluation, training, NO_AUGMENTATION, keep=lambda bits, one: kept.append(one)))
    before, after = (model.get_layer("frozen").kernel for model in (evaluation.backbone, kept[0]))
    assert np.abs(before.numpy() - after.numpy()).max() > 0
    # The subject itself stays as it is.
    assert not evaluation.backbone.get_layer("frozen").trainable


def test_fine_tuning_reports_float_and_its_curve_also_where_no_float_was_asked_for(evaluation):
    training = dataclasses.replace(TRAINING, epochs=2)
    found = list(finetuned(asking(evaluation, bits="8w8a"), training, NO_AUGMENTATION))
    assert [one.bits for one in found] == ["fp", "8w8a"]
    assert [len(one.curve or []) for one in found] == [2, 0]


@pytest.mark.parametrize(
    ("protocol", "function"),
    [("finetune", "finetuned"), ("semi", "trained_at_each_bit_width")],
)
def test_protocols_that_train_networks_get_what_was_asked_for(
    evaluation, monkeypatch, protocol, function
):
    calls = []
    monkeypatch.setattr(network, function, lambda one, **named: calls.append((one, named)) or ())
    for label_share, from_scratch in ((0.25, True), (0.5, False)):
        config = config_of(
            bits="fp", protocol=protocol, label_share=label_share, from_scratch=from_scratch
        )
        list(run.measure(dataclasses.replace(evaluation, config=config)))
        given, asked = calls.pop()
        assert given.backbone is evaluation.backbone and asked["training"].epochs == 50
        assert (asked["label_share"], asked["from_scratch"]) == (label_share, from_scratch)
        assert asked["augmentation"] == NO_AUGMENTATION
