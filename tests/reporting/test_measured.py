"""The table that an evaluation prints."""

import numpy as np
import pytest

from tfcq.evaluation.accuracy import Accuracy, majority_share
from tfcq.reporting.measured import in_words

FLOAT = Accuracy("fp", 0.9, 1.0, 0.8)
LOW = Accuracy("4w4a", 0.7, 1.0, 0.6, ranges="float pass", steps="minmax ranges")
LOWER = Accuracy("2w4a", 0.625, 1.0, 0.5, ranges="float pass", steps="mse ranges")


def record(classes):
    return {
        "dataset": "cells", "protocol": "knn", "test_images": 50, "classes": classes,
        "majority_share": 0.625,
    }  # fmt: skip


def on_kernels(name):
    return Accuracy(None, 0.9, 1.0, 0.8, kernels=name)


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        (["xnnpack", "reference"], "Runtime: ai-edge-litert 2.3.0"),
        (["micro"], "Runtime: tflite-micro 0.dev7"),
        (["optimized", "micro"], "Runtime: ai-edge-litert 2.3.0, tflite-micro 0.dev7"),
    ],
)
def test_figures_of_a_file_stand_under_its_kernels_beside_what_ran_it(kernels, expected):
    versions = {"ai_edge_litert": "2.3.0", "tflite_micro": "0.dev7", "keras": "3.15"}
    text = in_words({**record(2), "versions": versions}, list(map(on_kernels, kernels)))
    (heading,) = [line for line in text.splitlines() if line.startswith("| kernels")]
    assert [cell.strip() for cell in heading.split("|")[2:-1]] == kernels
    assert text.endswith("\n" + expected)


@pytest.mark.parametrize(("classes", "told"), [(2, False), (5, False), (6, True)])
def test_top_5_is_told_where_it_can_be_missed(classes, told):
    assert ("top-5" in in_words(record(classes), [FLOAT])) == told


def test_the_largest_class_and_all_that_was_done_stand_beside_accuracies():
    text = in_words(record(2), [FLOAT, LOW, LOWER])
    assert "50 test images of 2 classes, the largest 62.5%" in text
    assert "Activation ranges: float pass\n" in text
    assert "\nNo better than naming the largest class always: 2w4a\n" in text
    assert "No better" not in in_words(record(2), [FLOAT, LOW])
    assert text.endswith("After training: 4w4a minmax ranges; 2w4a mse ranges")


def test_majority_share_is_that_of_the_most_frequent_class():
    assert majority_share(np.array([3, 1, 3, 3, 0])) == 0.6
