"""The linear probe against known results and a naive loop."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tfcq.errors import UserError
from tfcq.evaluation.probe import fit_linear_probe


def test_linear_probe_reaches_logistic_regression_on_digits():
    pixels, labels = load_digits(return_X_y=True)
    probe = fit_linear_probe(pixels[:1400], labels[:1400], 10)
    ours = np.mean(probe.logits(pixels[1400:]).argmax(1) == labels[1400:])
    scale = pixels[:1400].std(0) + 1e-9
    theirs = LogisticRegression(max_iter=2000).fit(pixels[:1400] / scale, labels[:1400])
    assert ours > theirs.score(pixels[1400:] / scale, labels[1400:]) - 0.01


@pytest.mark.parametrize("batch_size", [5, 100])
def test_probe_is_trained_as_in_a_naive_loop(batch_size):
    """SGD with momentum on the mean cross-entropy of standardized features, under a cosine."""
    random = np.random.default_rng(0)
    # More features than are standardized at a time.
    features, test = random.normal(2, 3, (23, 70)), random.normal(size=(4, 70))
    labels = random.integers(0, 3, 23)
    probe = fit_linear_probe(features, labels, 3, 4, 0.3, 0.8, batch_size, seed=7)

    mean, deviation = features.mean(0), features.std(0)
    weights, bias = np.zeros((70, 3)), np.zeros(3)
    moved, moved_bias = np.zeros_like(weights), np.zeros_like(bias)
    size = min(batch_size, 23)
    order, step, steps = np.random.default_rng(7), 0, 4 * (23 // size)
    for _ in range(4):
        epoch = order.permutation(23)
        for batch in (epoch[i * size : (i + 1) * size] for i in range(23 // size)):
            gradient, gradient_bias = np.zeros_like(weights), np.zeros_like(bias)
            for index in batch:
                x = (features[index] - mean) / deviation
                exponentials = np.exp(x @ weights + bias)
                error = exponentials / exponentials.sum() - np.eye(3)[labels[index]]
                gradient += np.outer(x, error) / size
                gradient_bias += error / size
            rate = 0.3 * (1 + np.cos(np.pi * step / steps)) / 2
            moved = 0.8 * moved - rate * gradient
            moved_bias = 0.8 * moved_bias - rate * gradient_bias
            weights, bias, step = weights + moved, bias + moved_bias, step + 1
    expected = (test - mean) / deviation @ weights + bias
    np.testing.assert_allclose(probe.logits(test), expected, rtol=1e-9)


def test_feature_that_varies_by_rounding_alone_carries_nothing():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 40)
    features = np.stack([random.normal(size=40) + labels, 3 + 1e-9 * labels], axis=1)
    probe = fit_linear_probe(features, labels, 2)
    awake = features + [0, 1]
    np.testing.assert_array_equal(probe.logits(awake), probe.logits(features))


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 1]])
def test_labels_outside_the_classes_are_refused(labels):
    with pytest.raises(UserError, match="outside the 2 classes"):
        fit_linear_probe(np.ones((3, 2)), np.array(labels), 2)
