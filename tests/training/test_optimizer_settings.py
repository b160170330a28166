"""Optimizers from settings."""

import keras
import pytest
from keras import layers

from tfcq.settings.training import config_from_flat
from tfcq.training.optimizers import OPTIMIZERS, optimizer_from


def optimizer(steps=10, **values):
    return optimizer_from(config_from_flat({"epochs": 10, **values}).optimization, steps)


def rate(optimizer, step):
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_by_name(name):
    assert type(optimizer(optimizer=name)) is OPTIMIZERS[name]


def test_exclusion_of_nothing_lets_lars_scale_and_decay_every_variable():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.BatchNormalization()])
    for exclude, left_out in ((None, 3), ("none", 0), ("bias", 1)):
        found = optimizer(optimizer="lars", exclude=exclude)
        found.build(model.trainable_variables)
        assert len(found.unscaled) == len(found.excluded) == left_out


@pytest.mark.parametrize(
    ("name", "nesterov"), [("sgd", False), ("sgd", True), ("lars", True), ("adamw", False)]
)
def test_every_setting_of_the_optimizer_reaches_it(name, nesterov):
    values = {"momentum": 0.75, "weight_decay": 0.01, "exclude": "bias,gamma"}
    found = optimizer(optimizer=name, nesterov=nesterov, **values).get_config()
    adam = name == "adamw"
    assert found["beta_1" if adam else "momentum"] == 0.75
    assert found["weight_decay" if adam else "l2"] == 0.01
    assert list(found["exclude"]) == ["bias", "gamma"]
    assert adam or found["nesterov"] is nesterov
    assert optimizer(optimizer=name).get_config()["exclude"] == ([] if adam else None)


def test_learning_rate_is_scaled_by_the_batch_only_when_asked_for():
    values = {"learning_rate": 0.5, "batch_size": 64, "learning_rate_schedule": "constant"}
    assert rate(optimizer(**values), 0) == pytest.approx(0.5)
    assert rate(optimizer(**values, scale_learning_rate=True), 0) == pytest.approx(0.125)


def test_warm_up_and_milestones_count_in_any_unit():
    found = optimizer(
        learning_rate=0.8,
        batch_size=100,
        warmup="4steps",
        learning_rate_schedule="step",
        milestones="2epochs,5000examples",
        milestone_factor=0.5,
    )
    expected = {0: 0, 2: 0.4, 4: 0.8, 19: 0.8, 20: 0.4, 49: 0.4, 50: 0.2, 99: 0.2}
    assert {step: pytest.approx(rate(found, step)) for step in expected} == expected


def test_settings_reach_the_optimizer():
    values = {"momentum": 0.7, "weight_decay": 0.02, "nesterov": True, "optimizer": "sgd"}
    found = optimizer(**values).get_config()
    assert {name: found[name] for name in ("momentum", "nesterov")} == {
        "momentum": 0.7, "nesterov": True,
    }  # fmt: skip
    assert found["l2"] == 0.02
