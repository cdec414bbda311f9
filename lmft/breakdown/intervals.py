"""Intervals of changes, by a paired bootstrap over documents."""

from functools import lru_cache

import numpy as np

NUM_SAMPLES = 1000
INTERVAL = 0.95
FEWEST = 10
"""Documents, or groups of them, below which no interval is given."""


def sampled_changes(nats: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
    """Return the change of the loss in samples of the documents, drawn with replacement (Efron 1979).

    Before and after have the same documents in each sample. A class whose loss cannot be sampled,
    because fewer than 10 documents have a target of it, has NaN.

    Args:
        nats: [N, C] of each document (or group) and class: nats after training less those before.
        targets: [N, C] their targets.
        seed: seed of the samples.

    Returns: [samples, C] nats per target.
    """
    has_targets = (targets > 0).any(axis=1)
    if not has_targets.any():
        return np.full((NUM_SAMPLES, nats.shape[1]), np.nan)
    drawn = _drawn(int(has_targets.sum()), seed)
    num_targets = drawn @ targets[has_targets].astype(np.float64)
    changes = np.full(num_targets.shape, np.nan)
    np.divide(drawn @ nats[has_targets], num_targets, out=changes, where=num_targets > 0)
    changes[:, np.count_nonzero(targets, axis=0) < FEWEST] = np.nan
    return changes


def bounds(changes: np.ndarray) -> tuple[float | None, float | None]:
    """Return the ends of the interval of sampled changes [samples]; None if there are none."""
    known = changes[~np.isnan(changes)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _drawn(num_documents: int, seed: int) -> np.ndarray:
    """Return how often each sample has each document. [samples, N]"""
    rng = np.random.default_rng(seed)
    chances = np.full(num_documents, 1 / num_documents)
    return rng.multinomial(num_documents, chances, NUM_SAMPLES).astype(np.float64)
