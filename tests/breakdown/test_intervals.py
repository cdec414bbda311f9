"""Intervals of changes hold what they should, and compare the same documents before and after."""

import numpy as np
import pytest

from lmft.breakdown.intervals import bounds, sampled_changes


def test_a_change_that_all_documents_share_has_a_narrow_interval():
    targets = np.random.default_rng(1).integers(1, 100, (60, 1))
    low, high = bounds(sampled_changes(-0.5 * targets, targets, seed=1)[:, 0])
    assert low == pytest.approx(-0.5) and high == pytest.approx(-0.5)


def test_the_interval_holds_the_true_change_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        targets = rng.integers(5, 50, (80, 1))
        nats = targets * rng.normal(-0.1, 0.5, (80, 1))
        low, high = bounds(sampled_changes(nats, targets, seed % 4)[:, 0])
        hits += low <= -0.1 <= high
    assert 178 <= hits <= 199


def test_classes_of_few_documents_have_no_interval():
    targets = np.ones((30, 3), np.int64)
    targets[9:, 1] = 0  # nine documents
    targets[:, 2] = 0
    changes = sampled_changes(-np.ones((30, 3)) * targets, targets, seed=1)
    assert bounds(changes[:, 0]) == (pytest.approx(-1), pytest.approx(-1))
    assert bounds(changes[:, 1]) == bounds(changes[:, 2]) == (None, None)
    assert bounds(sampled_changes(np.zeros((5, 1)), np.zeros((5, 1), int), 1)[:, 0]) == (None, None)


def test_documents_without_a_target_are_not_drawn():
    rng = np.random.default_rng(3)
    targets = rng.integers(1, 9, (40, 2))
    nats = rng.normal(size=(40, 2))
    more = [np.concatenate([each, np.zeros((500, 2), each.dtype)]) for each in (nats, targets)]
    np.testing.assert_array_equal(sampled_changes(*more, seed=1), sampled_changes(nats, targets, seed=1))
