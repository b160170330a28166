"""Patterns on the paths of variables."""

import keras
import pytest

from tfcq.errors import UserError
from tfcq.training.exclusions import excluded, matches


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("net/conv_norm/beta", "beta", True),
        ("net/conv_norm/beta", "conv_norm", True),
        ("net/conv_norm/beta", "net", True),
        ("net/conv_norm/beta", "conv_norm/beta", True),
        ("net/conv_norm/beta", "*_norm", True),
        ("net/conv_norm/beta", "net/*/beta", True),
        ("net/conv_norm/beta", "net/conv_norm/beta", True),
        ("bias", "bias", True),
        # A part of a part is no match: these would take other variables along unseen.
        ("beta_net/kernel", "beta", False),
        ("net/debias/kernel", "bias", False),
        ("net/dense_1/kernel", "dense", False),
        ("net/conv_norm/beta", "norm/beta", False),
        ("net/conv_norm/beta", "net/beta", False),
        ("net/conv_norm/beta", "Beta", False),
        ("net/conv_norm/beta", "", False),
    ],
)
def test_pattern_names_whole_parts(path, pattern, expected):
    assert matches(path, pattern) is expected


@pytest.fixture(scope="module")
def variables():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="dense"),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias", "gamma", "beta"]
    return model.trainable_variables


def test_given_patterns_choose(variables):
    assert excluded(variables, ("norm", "bias")) == {1, 2, 3}
    assert excluded(variables, ()) == set()


def test_standard_patterns_stand_in_for_none_and_may_find_nothing(variables):
    assert excluded(variables, None) == set()
    assert excluded(variables, None, ("gamma", "absent")) == {2}
    assert excluded(variables, ("bias",), ("gamma",)) == {1}


def test_every_given_pattern_must_match(variables):
    with pytest.raises(UserError) as error:
        excluded(variables, ("bias", "gama"))
    assert str(error.value) == (
        "Exclusion 'gama' matches no variable; allowed: whole parts of paths, such as beta, bias, "
        "gamma, kernel, a layer's name, or wildcards such as '*_norm'. Did you mean 'gamma'?"
    )
