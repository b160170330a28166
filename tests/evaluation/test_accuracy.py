"""Accuracy of scores, against a naive loop."""

import numpy as np
import pytest

from tfcq.evaluation.accuracy import Accuracy, accuracy, accuracy_of
from tfcq.settings.bitwidths import parse_bit_width


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_that_of_a_naive_loop(seed):
    random = np.random.default_rng(seed)
    # Few different scores, so that many are equal; classes 2 and 7 have no image.
    scores = random.integers(0, 4, (30, 8)) / 4
    labels = random.choice([0, 1, 1, 1, 3, 4, 5, 6], 30)

    def is_among(row, label, top):
        order = sorted(range(8), key=lambda one: (-row[one], one))
        return label in order[:top]

    right = {
        top: [is_among(row, label, top) for row, label in zip(scores, labels, strict=True)]
        for top in (1, 2, 5)
    }
    shares = [np.mean(np.array(right[1])[labels == one]) for one in sorted(set(labels.tolist()))]
    assert accuracy(scores, labels, 2) == np.mean(right[2])
    found = accuracy_of(scores, labels, parse_bit_width("2w4a"))
    assert found == Accuracy("2w4a", np.mean(right[1]), np.mean(right[5]), np.mean(shares))
