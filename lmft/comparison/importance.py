"""How much of the differences between runs each option explains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.comparison.records import as_key

FEWEST_RUNS = 10
_MOST_VALUES = 6  # of a number that is treated as a choice
_NUM_SHUFFLES = 1000
METHOD = (
    "share of the differences in rank that an option explains by itself: adjusted R² of the ranks of "
    "the scores, on the values of a choice, or on rank and squared rank of a number; what options do "
    "only together is not seen"
)


@dataclass(frozen=True)
class Importance:
    """The share of the differences that one option explains."""

    share: float | None
    """From 0 to 1; None if there are too few runs for its values, or all have the same score."""
    chance: float | None
    """What 95 of 100 random orders of the scores stay below."""


def importances(
    options: Sequence[Sequence[Any]], costs: Sequence[float], seed: int
) -> list[Importance] | None:
    """Return the importance of each option; None for too few runs.

    Args:
        options: of each option one value a run.
        costs: one a run, lower is better.
        seed: seed of the random orders.
    """
    if len(costs) < FEWEST_RUNS:
        return None
    ranks = _ranks(np.asarray(costs, float))
    if np.ptp(ranks) == 0:  # there is nothing to explain
        return [Importance(None, None)] * len(options)
    rng = np.random.default_rng(seed)
    orders = np.stack([ranks, *(rng.permutation(ranks) for _ in range(_NUM_SHUFFLES))], axis=1)
    return [_importance(values, orders) for values in options]


def _importance(values: Sequence[Any], orders: np.ndarray) -> Importance:
    """Return an option's importance. orders [N, 1 + shuffles]: ranks as measured, then shuffled."""
    design = _design(values)
    num_runs, num_columns = design.shape
    num_left = num_runs - num_columns - 1
    if num_columns == 0 or num_left < 2:
        return Importance(None, None)
    centred = orders - orders.mean(axis=0)
    basis, _ = np.linalg.qr(design - design.mean(axis=0))
    explained = ((basis.T @ centred) ** 2).sum(axis=0) / (centred**2).sum(axis=0)
    adjusted = np.clip(1 - (1 - explained) * (num_runs - 1) / num_left, 0, 1)
    return Importance(float(adjusted[0]), float(np.quantile(adjusted[1:], 0.95)))


def _design(values: Sequence[Any]) -> np.ndarray:
    """Return the columns that stand for an option's values. [N, number of columns]"""
    keys = [as_key(value) for value in values]
    names = sorted(set(keys))
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if is_number and len(names) > _MOST_VALUES:
        ranks = _ranks(np.asarray(values, float))
        ranks = ranks / len(ranks) - 0.5
        return np.stack([ranks, ranks**2], axis=1)
    return np.array([[float(key == name) for name in names[1:]] for key in keys]).reshape(len(keys), -1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0; equal values share the mean of theirs. [N]"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts) + (ends - 1)).take(inverse) / 2
