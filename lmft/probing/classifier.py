"""A linear classifier of frozen features, and how sure its scores are."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.errors import UserError

_Z = 1.959964  # of a 95% interval
_LEVELS = (2.5, 97.5)  # percentiles of a 95% interval


@dataclass(frozen=True)
class Predicted:
    """The predictions for held-out rows."""

    labels: np.ndarray  # [N] str
    predictions: np.ndarray  # [N] str
    converged: bool = True

    @property
    def is_right(self) -> np.ndarray:
        """Tell which predictions are right. [N] bool"""
        return self.labels == self.predictions

    @property
    def accuracy(self) -> float:
        """The share of rows with the right prediction."""
        return float(self.is_right.mean())

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1 scores, each class counting alike."""
        return macro_f1(self.labels, self.predictions)


def classify(
    features: np.ndarray,
    labels: Sequence[str],
    held_out: np.ndarray,
    held_out_labels: Sequence[str],
    strength: float,
    seed: int,
) -> Predicted:
    """Fit a logistic regression to standardised features, and predict the held-out rows.

    Args:
        features: [N, D] of the rows to train on.
        labels: [N] their classes.
        held_out: [M, D].
        held_out_labels: [M].
        strength: inverse of the penalty on the weights (scikit-learn's C).
        seed: seed of the solver.

    Raises: UserError if scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        what = "a linear probe needs scikit-learn"
        raise UserError(what, fix="pip install 'lightning-lmft[probe]'") from error
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=2000, random_state=seed)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    converged = not any(issubclass(each.category, ConvergenceWarning) for each in caught)
    return Predicted(np.array(held_out_labels), np.asarray(model.predict(held_out)), converged)


def majority(labels: Sequence[str], held_out_labels: Sequence[str]) -> Predicted:
    """Return the predictions that say the most frequent class of the training rows for every row."""
    most = Counter(labels).most_common(1)[0][0]
    return Predicted(np.array(held_out_labels), np.full(len(held_out_labels), most))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean of the F1 scores of the classes that occur among the labels."""
    scores = []
    for name in np.unique(labels):
        hits = ((labels == name) & (predictions == name)).sum()
        said = (predictions == name).sum() + (labels == name).sum()
        scores.append(2 * hits / said)
    return float(np.mean(scores))


def wilson(share: float, num_rows: int) -> list[float]:
    """Return the 95% interval of a share of independent rows (Wilson 1927)."""
    squared = _Z**2 / num_rows
    middle = (share + squared / 2) / (1 + squared)
    half = _Z * math.sqrt(share * (1 - share) / num_rows + squared / (4 * num_rows)) / (1 + squared)
    return [middle - half, middle + half]


def scores(predicted: Predicted, samples: int, seed: int) -> dict[str, Any]:
    """Return accuracy with Wilson's interval, macro F1 with that of a bootstrap over rows.

    Args:
        predicted: the predictions.
        samples: samples of the bootstrap.
        seed: seed of the bootstrap.
    """
    drawn = _draws(len(predicted.labels), samples, seed)
    values = [macro_f1(predicted.labels[rows], predicted.predictions[rows]) for rows in drawn]
    return {
        "accuracy": predicted.accuracy,
        "accuracy_interval": wilson(predicted.accuracy, len(predicted.labels)),
        "macro_f1": predicted.macro_f1,
        "macro_f1_interval": np.percentile(values, _LEVELS).tolist(),
    }


def change(before: Predicted, after: Predicted, samples: int, seed: int) -> dict[str, Any]:
    """Return how much better `after` is, with the interval of a paired bootstrap over the rows.

    Args:
        before: predictions.
        after: predictions for the same rows.
        samples: samples of the bootstrap.
        seed: seed of the bootstrap.
    """
    gained = after.is_right.astype(float) - before.is_right
    means = [gained[rows].mean() for rows in _draws(len(gained), samples, seed)]
    return {
        "accuracy": float(gained.mean()),
        "accuracy_interval": np.percentile(means, _LEVELS).tolist(),
        "macro_f1": after.macro_f1 - before.macro_f1,
    }


def _draws(num_rows: int, samples: int, seed: int) -> np.ndarray:
    """Return rows drawn with replacement. [samples, N]"""
    return np.random.default_rng(seed).integers(num_rows, size=(samples, num_rows))
