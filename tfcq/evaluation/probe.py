"""The linear probe: a softmax classifier on standardized, frozen features."""

import dataclasses
from collections.abc import Sized

import numpy as np

from tfcq.errors import TrainingStopped, UserError

_COLUMNS = 64


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A float linear classifier.

    Args:
        mean: float [width], subtracted from features.
        deviation: float [width], features are divided by it.
        weights: float [width, classes].
        bias: float [classes].
    """

    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns scores, float [count, classes].

        Args:
            features: float [count, width].
        """
        return (features - self.mean) / self.deviation @ self.weights + self.bias

    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel and bias of a dense layer that computes `logits`."""
        kernel = self.weights / self.deviation[:, np.newaxis]
        return kernel, self.bias - self.mean @ kernel


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    epochs: int = 60,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    batch_size: int = 256,
    seed: int = 0,
) -> LinearProbe:
    """Trains a linear classifier with SGD under a cosine learning rate.

    The gradient of the mean cross-entropy of softmax(x W + b) is x^T (softmax - one_hot) / batch.

    Args:
        features: float [count, width].
        labels: int [count], from 0 to classes - 1.
        classes: number of classes.
        epochs: passes over the features.
        learning_rate: first learning rate; it falls to zero.
        momentum: momentum of SGD.
        batch_size: examples per step; at most all.
        seed: seed of the order.

    Raises:
        UserError: when labels are missing or outside the classes, or counts differ.
        TrainingStopped: when the classifier diverges.
    """
    check_labels(features, labels, classes)
    mean, deviation = moments(features)
    count, width = features.shape
    # One copy and no more: features of large data sets take most of the memory.
    inputs = np.ones((count, width + 1), features.dtype)
    np.subtract(features, mean, out=inputs[:, :-1])
    inputs[:, :-1] /= deviation
    parameters = np.zeros((width + 1, classes), inputs.dtype)
    velocity = np.zeros_like(parameters)
    order = np.random.default_rng(seed)
    batch_size = min(batch_size, count)
    steps = epochs * (count // batch_size)
    step = 0
    for _ in range(epochs):
        permutation = order.permutation(count)
        for start in range(0, count - batch_size + 1, batch_size):
            chosen = permutation[start : start + batch_size]
            errors = _softmax(inputs[chosen] @ parameters)
            errors[np.arange(batch_size), labels[chosen]] -= 1
            gradient = inputs[chosen].T @ errors / batch_size
            rate = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
            velocity = momentum * velocity - rate * gradient
            parameters = parameters + velocity.astype(parameters.dtype)
            step += 1
    if not np.all(np.isfinite(parameters)):
        raise TrainingStopped("The linear probe diverged; try a lower --learning_rate.")
    return LinearProbe(mean, deviation, parameters[:-1], parameters[-1])


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each feature, of shape [width] and their dtype.

    A feature that varies by rounding alone carries nothing; its deviation is infinite, which keeps
    it at zero.

    Args:
        features: float [count, width].
    """
    mean = features.mean(axis=0, dtype=np.float64)
    # A few columns at a time, since NumPy makes a float64 copy of what it takes the deviation of.
    deviation = np.empty_like(mean)
    for start in range(0, len(mean), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        deviation[columns] = features[:, columns].std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    deviation = np.where(constant, np.inf, deviation)
    return mean.astype(features.dtype), deviation.astype(features.dtype)


def check_labels(features: Sized, labels: np.ndarray, classes: int) -> None:
    """Refuses labels that a classifier cannot learn from.

    Args:
        features: one for each label, such as float [count, width].
        labels: int [count].
        classes: number of classes.

    Raises:
        UserError: when counts differ, or a label is outside 0 to classes - 1.
    """
    if len(features) != len(labels):
        raise UserError(
            f"Received {len(features)} features and {len(labels)} labels; allowed: equal."
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise UserError(
            f"{len(wrong)} labels are outside the {classes} classes, such as {wrong[0]}; allowed: "
            f"0 to {classes - 1}."
        )


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
