"""The paired bootstrap finds differences that documents share, and none that chance explains."""

import numpy as np
import pytest

from lmft.comparison.bootstrap import Scored, difference
from lmft.errors import UserError


def scores(nats, tokens=10.0):
    return {(number, "text.txt", number + 1): Scored(float(each), tokens) for number, each in enumerate(nats)}


@pytest.fixture
def nats():
    """Documents that differ much more from each other than two models do."""
    return np.random.default_rng(1).uniform(10, 100, 60)


def test_a_small_difference_in_every_document_is_found(nats):
    found = difference([scores(nats)], [scores(nats + 0.5)], 2000, seed=1)
    assert found.mean == pytest.approx(0.05) and found.low == pytest.approx(0.05) == found.high
    assert found.sentence("A", "B").startswith("A is better than B, by 0.05 nats per token: 95% of 2,000 samples")
    assert "B is better than A" not in difference([scores(nats + 0.5)], [scores(nats)], 2000, seed=1).sentence("B", "A")


def test_two_models_that_differ_by_chance_cannot_be_told_apart(nats):
    noise = np.random.default_rng(2).normal(0, 5, 60)
    found = difference([scores(nats)], [scores(nats + noise - noise.mean() + 0.05)], 2000, seed=1)
    assert found.low < 0 < found.high
    assert "A and B do not differ significantly: A is ahead by 0.005" in found.sentence("A", "B")


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        gains = rng.normal(1.0, 3.0, 50)
        found = difference([scores(np.zeros(50))], [scores(gains)], 500, seed=1)
        hits += found.low <= 0.1 <= found.high
    assert 180 <= hits <= 198


def test_seeds_are_averaged_and_said(nats):
    found = difference([scores(nats + 1), scores(nats - 1)], [scores(nats), scores(nats)], 500, seed=1)
    assert found.mean == pytest.approx(0) and found.num_runs == (2, 2)
    assert "only one run" not in found.sentence("A", "B")
    assert "only one run" in difference([scores(nats)], [scores(nats)], 500, seed=1).sentence("A", "B")


def test_the_same_seed_draws_the_same_documents(nats):
    noisy = scores(nats + np.random.default_rng(4).normal(0, 1, 60))
    first, second, other = (difference([scores(nats)], [noisy], 500, seed) for seed in (1, 1, 2))
    assert first == second != other


def test_other_vocabularies_are_compared_per_document(nats):
    found = difference([scores(nats, tokens=10)], [scores(nats + 2, tokens=7)], 500, seed=1)
    assert found.unit == "nats per document" and found.mean == pytest.approx(2)


def test_other_documents_and_too_few_are_refused(nats):
    with pytest.raises(UserError, match="other validation documents: 60 and 59"):
        difference([scores(nats)], [scores(nats[1:])], 500, seed=1)
    with pytest.raises(UserError, match="9 documents are too few"):
        difference([scores(nats[:9])], [scores(nats[:9])], 500, seed=1)
