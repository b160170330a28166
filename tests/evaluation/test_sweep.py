"""A sweep computes features once a bit-width, and gives exact accuracies."""

import numpy as np

from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.sweep import by_scores, sweep
from tfcq.settings.bitwidths import parse_bit_widths


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
    results = list(sweep(features, data, parse_bit_widths("fp,8w8a"), protocols))
    assert [(name, r.bits, r.top1, r.top5, r.mean_per_class) for name, r in results] == [
        ("linear", "fp", 0.75, 1.0, 0.75),
        ("first", "fp", 0.5, 1.0, 0.5),
        ("linear", "8w8a", 0.75, 1.0, 0.75),
        ("first", "8w8a", 0.5, 1.0, 0.5),
    ]
    # Training and test features, once for both protocols.
    assert asked == ["fp", "fp", "8w8a", "8w8a"]
