"""The figures of a comparison, worked out by hand."""

import time

import numpy as np
import pytest

from tfcq.deployment.check import Comparison, compare, median_seconds
from tfcq.errors import UserError


def test_figures_of_two_images():
    reference = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    features = np.array([[3.0, 4.0], [2.0, 0.0]], np.float32)
    # Differences 0, 0, 2, -1; norms sqrt(5) and sqrt(26). The third class has the lowest score.
    found = compare(features, reference, lambda x: np.pad(x, ((0, 0), (0, 1)), constant_values=-1))
    assert found == Comparison(0.5, 0.5, 0.0, pytest.approx(np.sqrt(5 / 26)), 2.0)


def test_equal_features_agree_even_where_all_are_zero():
    zeros = np.zeros((2, 3))
    assert compare(zeros, zeros, lambda x: x) == Comparison(1.0, 1.0, 1.0, 0.0, 0.0)


def test_agreement_is_that_of_the_classifier():
    reference, features = np.array([[1.0], [2.0]]), np.array([[1.2], [3.0]])
    found = compare(features, reference, lambda x: np.concatenate([x, 5 - x], axis=1))
    assert found.agreement == 0.5


@pytest.mark.parametrize("shape", [(2, 4), (1, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UserError, match="equal shapes"):
        compare(np.zeros((2, 3)), np.zeros(shape), lambda x: x)


def test_calls_take_turns_and_neither_the_warm_up_nor_one_slow_call_counts():
    order = []

    def slow():
        order.append("slow")
        # Two calls to warm up, and one of three that are measured.
        time.sleep(0.15 if order.count("slow") < 4 else 0.005)

    seconds = median_seconds({"slow": slow, "fast": lambda: order.append("fast")}, 3, 2)
    assert order == ["slow", "fast"] * 5
    assert 0.005 <= seconds["slow"] < 0.05 and seconds["fast"] < 0.005
