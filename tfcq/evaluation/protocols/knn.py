"""Weighted nearest-neighbour classification on frozen features."""

import numpy as np

from tfcq.errors import UserError
from tfcq.evaluation.probe import check_labels
from tfcq.evaluation.protocols import Runner
from tfcq.evaluation.scoring import Scoring
from tfcq.evaluation.sweep import Scorer, by_scores


def knn_scores(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    classes: int,
    neighbours: int = 20,
    temperature: float = 0.1,
) -> np.ndarray:
    """Returns the share of weight that each class has among a query's nearest neighbours.

    A neighbour at cosine similarity s weighs exp(s / temperature) (Wu et al., 2018, Sec. 3.4).

    Args:
        features: float [count, width], the labelled features.
        labels: int [count].
        queries: float [queries, width].
        classes: number of classes.
        neighbours: how many neighbours vote; at most all.
        temperature: positive; the smaller, the more the nearest decide.

    Returns:
        A float array [queries, classes] with rows that sum to 1.

    Raises:
        UserError: when labels do not fit or scikit-learn is missing.
    """
    try:
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError:
        raise UserError(
            "kNN needs scikit-learn; install it with: pip install scikit-learn"
        ) from None
    check_labels(features, labels, classes)
    classifier = KNeighborsClassifier(
        min(neighbours, len(features)),
        # Distances are 1 - similarity; a common factor cancels out, and that of the nearest
        # neighbour keeps its weight at 1 for any temperature.
        weights=lambda distances: np.exp(
            (distances.min(axis=1, keepdims=True) - distances) / temperature
        ),
        metric="cosine",
        algorithm="brute",
    )
    classifier.fit(features, labels)
    scores = np.zeros((len(queries), classes))
    scores[:, classifier.classes_] = classifier.predict_proba(queries)
    return scores


def _scorer(evaluation: Scoring) -> Scorer:
    measurement = evaluation.config.measurement
    options = measurement.neighbours, measurement.temperature
    return by_scores(
        lambda features, labels, queries, classes: knn_scores(
            features, labels, queries, classes, *options
        ),
        evaluation.data,
    )


knn = Runner(scorer=_scorer)
