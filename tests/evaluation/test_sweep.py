"""Evaluation on frozen features: one trace, exact accuracies, probes against known results."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tfcq.errors import UserError
from tfcq.evaluation.accuracy import LabelledImages, accuracy, accuracy_of
from tfcq.evaluation.calibration import calibrate
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.knn import knn_scores
from tfcq.evaluation.linear import fit_linear_probe
from tfcq.evaluation.sweep import by_scores, sweep
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.bitwidths import parse_bit_widths
from tfcq.quantization.precision import Precision

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


def test_accuracy_counts_labels_among_the_highest_scores():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
    labels = np.array([1, 1, 0, 1])
    assert accuracy(scores, labels, 1) == 1 / 4
    assert accuracy(scores, labels, 2) == 1.0


def test_linear_probe_reaches_logistic_regression_on_digits():
    pixels, labels = load_digits(return_X_y=True)
    probe = fit_linear_probe(pixels[:1400], labels[:1400], 10)
    ours = np.mean(probe.logits(pixels[1400:]).argmax(1) == labels[1400:])
    scale = pixels[:1400].std(0) + 1e-9
    theirs = LogisticRegression(max_iter=2000).fit(pixels[:1400] / scale, labels[:1400])
    assert ours > theirs.score(pixels[1400:] / scale, labels[1400:]) - 0.01


def test_first_step_of_the_probe_is_the_closed_form_gradient():
    features = np.array([[1.0, -1.0], [-1.0, 1.0]])
    probe = fit_linear_probe(features, np.array([0, 1]), 2, epochs=1, learning_rate=0.1)
    # Zero weights give softmax 1/2 everywhere, and features are standardized already.
    np.testing.assert_allclose(probe.weights, [[0.05, -0.05], [-0.05, 0.05]])
    np.testing.assert_allclose(probe.bias, [0, 0], atol=1e-12)


def test_nearest_neighbours_match_a_naive_double_loop():
    random = np.random.default_rng(0)
    known, queries = random.normal(size=(12, 3)), random.normal(size=(4, 3))
    labels = random.integers(0, 3, 12)
    expected = np.zeros((4, 3))
    for row, query in enumerate(queries):
        similarity = [k @ query / np.linalg.norm(k) / np.linalg.norm(query) for k in known]
        for index in np.argsort(similarity)[-5:]:
            expected[row, labels[index]] += np.exp(similarity[index] / 0.1)
    expected /= expected.sum(1, keepdims=True)
    found = knn_scores(known, labels, queries, 3, neighbours=5)
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


def test_mean_per_class_weighs_classes_alike():
    scores = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    found = accuracy_of(scores, np.array([0, 0, 0, 1]), EIGHT[0])
    assert (found.top1, found.mean_per_class) == (0.75, 0.5)
