"""Evaluation on frozen features: one trace, exact accuracies, probes against known results."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy, LabelledImages, accuracy, accuracy_of
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.knn import knn_scores
from tfcq.evaluation.linear import fit_linear_probe
from tfcq.evaluation.sweep import by_scores, sweep
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import parse_bit_widths

EIGHT = parse_bit_widths("fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a")


@pytest.fixture
def images():
    return (load_digits().images[:60, ..., None] / 16).astype(np.float32)


@pytest.fixture
def model(images):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = quantizable(network, "uniform")
    calibrate(model, images)
    return model


def test_eight_bit_widths_with_a_smaller_last_batch_share_one_trace(model, images):
    features = FeatureExtractor(model, batch_size=25)
    found = {str(bits): features(images, bits) for bits in EIGHT}
    assert features.traces == 1
    np.testing.assert_allclose(found["fp"], model(images), atol=1e-6)
    np.testing.assert_allclose(found["2w4a"], model(images, precision=Precision(2, 4)), atol=1e-5)
    assert np.abs(found["2w4a"] - found["fp"]).max() > 1e-3


def test_calibration_records_the_same_ranges_whatever_the_batch_size(model, images):
    def ranges():
        return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]

    whole = ranges()
    calibrate(model, images, batch_size=7)
    np.testing.assert_allclose(ranges(), whole, rtol=1e-6)
    calibrate(model, images[:1])
    assert not np.allclose(ranges(), whole)


def test_calibration_refuses_images_of_another_type_or_shape(model, images):
    with pytest.raises(UserError, match="Images of type uint8 .*pixels / 255"):
        calibrate(model, (255 * images).astype(np.uint8))
    with pytest.raises(UserError, match=r"Images of shape \(\d+, 3\) .*'any'"):
        calibrate(model, np.zeros((2, 3), np.float32))


def test_calibration_refuses_no_images_and_nan(model, images):
    with pytest.raises(UserError, match="0 images"):
        calibrate(model, images[:0])
    images[3, 2, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        calibrate(model, images)


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
    found = accuracy_of(scores, labels, EIGHT[-1])
    assert found == Accuracy("2w4a", np.mean(right[1]), np.mean(right[5]), np.mean(shares))


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


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 1]])
def test_labels_outside_the_classes_are_refused(labels):
    with pytest.raises(UserError, match="outside the 2 classes"):
        fit_linear_probe(np.ones((3, 2)), np.array(labels), 2)


def test_sweep_gives_the_hand_computed_accuracy_of_a_hand_set_network():
    # One feature equals the pixel; class 1 has bright pixels but for one test image.
    data = LabelledImages(
        np.array([0.0, 0.1, 0.9, 1.0]).reshape(4, 1),
        np.array([0, 0, 1, 1]),
        np.array([0.05, 0.2, 0.8, 0.3]).reshape(4, 1),
        np.array([0, 0, 1, 1]),
        classes=2,
    )
    asked = []

    def features(x, bits):
        asked.append(str(bits))
        return x

    def probe(train, labels, test, classes):
        return fit_linear_probe(train, labels, classes).logits(test)

    def always_first(train, labels, test, classes):
        return np.eye(classes)[np.zeros(len(test), int)]

    protocols = {"linear": by_scores(probe, data), "first": by_scores(always_first, data)}
    results = list(sweep(features, data, EIGHT[:2], protocols))
    assert [(name, r.bits, r.top1, r.top5, r.mean_per_class) for name, r in results] == [
        ("linear", "fp", 0.75, 1.0, 0.75),
        ("first", "fp", 0.5, 1.0, 0.5),
        ("linear", "8w8a", 0.75, 1.0, 0.75),
        ("first", "8w8a", 0.5, 1.0, 0.5),
    ]
    # Training and test features, once for both protocols.
    assert asked == ["fp", "fp", "8w8a", "8w8a"]
