"""Optimizers by name, and AdamW's exclusions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.training.lars import LARS
from tfcq.training.optimizers import AdamW, optimizer_named
from tfcq.training.schedules import learning_rate_schedule
from tfcq.training.sgd import SGD


def pair():
    return keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="bias")


def step(optimizer, variables, gradient=0.0):
    optimizer.apply_gradients([(tf.constant([gradient]), variable) for variable in variables])
    return [float(np.array(variable)[0]) for variable in variables]


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("lars", LARS), ("adamw", AdamW)])
def test_name_and_settings_make_the_optimizer(name, kind):
    schedule = learning_rate_schedule("cosine", 0.5, 10)
    optimizer = optimizer_named(name, schedule, 0.7, 0.01, ("bias",))
    assert type(optimizer) is kind
    config = optimizer.get_config()
    assert config["momentum" if kind is not AdamW else "beta_1"] == 0.7
    assert config["l2" if kind is not AdamW else "weight_decay"] == 0.01
    assert config["exclude"] == ["bias"]
    assert float(optimizer.learning_rate) == 0.5


# One step at gradient zero: only the decay acts, which LARS scales to 0.001 of the weight's norm.
@pytest.mark.parametrize(
    ("name", "kernel"),
    [("sgd", 2 - 0.5 * 0.25 * 2), ("adamw", 2 - 0.5 * 0.25 * 2), ("lars", 2 - 0.5 * 0.001 * 2)],
)
def test_excluded_variables_are_not_decayed(name, kernel):
    optimizer = optimizer_named(name, 0.5, 0.9, 0.25, ("bias",))
    assert step(optimizer, pair()) == [pytest.approx(kernel, rel=1e-6), 2]


@pytest.mark.parametrize(("name", "bias"), [("sgd", 1.75), ("adamw", 1.75), ("lars", 2)])
def test_biases_are_decayed_by_default_but_by_lars(name, bias):
    assert step(optimizer_named(name, 0.5, 0.9, 0.25), pair())[1] == bias


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_nesterov_looks_ahead(name):
    # Two gradients' worth: (1 + momentum) * rate * gradient.
    bias = keras.Variable([2.0], name="bias")
    optimizer = optimizer_named(name, 0.5, 0.5, exclude=("bias",) if name == "lars" else None,
                                nesterov=True)  # fmt: skip
    assert step(optimizer, [bias], gradient=1.0) == [2 - 1.5 * 0.5]


def test_adamw_without_exclusions_is_keras_adamw():
    ours, theirs = pair(), pair()
    left, right = AdamW(0.5, 0.25, 0.8), keras.optimizers.AdamW(0.5, 0.25, 0.8)
    for gradient in (1.0, -0.3, 2.0):
        assert step(left, ours, gradient) == step(right, theirs, gradient)


def test_adamw_configuration_and_exclusions_come_back():
    optimizer = AdamW(0.5, 0.25, 0.8, ("bias",), epsilon=1e-3)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is AdamW
    assert copy.get_config() == optimizer.get_config()
    assert step(copy, pair()) == [1.75, 2]


def test_adamw_is_restored_with_its_moments(tmp_path):
    variables = pair()
    optimizer = AdamW(0.5, 0.25, exclude=("bias",))
    step(optimizer, variables, 1.0)
    tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "one"))
    copies = [keras.Variable(np.array(v), name=v.name) for v in variables]
    restored = AdamW(0.5, 0.25, exclude=("bias",))
    restored.build(copies)
    status = tf.train.Checkpoint(optimizer=restored).read(str(tmp_path / "one"))
    status.assert_existing_objects_matched()
    assert step(restored, copies, -0.3) == step(optimizer, variables, -0.3)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_exclusion_without_a_match_is_refused_when_built(name):
    with pytest.raises(UserError, match="Exclusion 'kernels' .* Did you mean 'kernel'"):
        optimizer_named(name, 0.5, 0.9, 0.25, ("bias", "kernels")).build(list(pair()))


def test_unknown_name_names_the_nearest():
    with pytest.raises(UserError) as error:
        optimizer_named("adam", 0.5)
    assert str(error.value) == (
        "Unknown optimizer 'adam'; allowed: adamw, lars, sgd. Did you mean 'adamw'?"
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sgd", {"exclude": ("bias",)}, "without weight decay"),
        ("adamw", {"exclude": ("bias",)}, "without weight decay"),
        ("adamw", {"nesterov": True}, "nesterov has no effect"),
        ("sgd", {"nesterov": True, "momentum": 0.0}, "nesterov has no effect"),
    ],
)
def test_option_without_effect_is_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        optimizer_named(name, 0.5, **settings)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_whole_numbers_are_taken(name):
    assert float(optimizer_named(name, 1, 0).learning_rate) == 1
