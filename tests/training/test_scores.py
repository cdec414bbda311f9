import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.training.scores import Scores, perplexity


@pytest.mark.parametrize(("nats", "expected"), [(0.0, 1.0), (2.0, math.exp(2)), (710.0, math.inf), (1e6, math.inf)])
def test_perplexity_overflows_to_infinity(nats, expected):
    assert perplexity(nats) == expected


def test_without_targets_there_is_no_score():
    scores = Scores()
    scores.update(torch.tensor(0.0), torch.tensor(0), 0)
    for of in (Scores().compute(), scores.compute()):
        assert math.isnan(of["loss"]) and math.isnan(of["perplexity"]) and math.isnan(of["accuracy"])
        assert of["targets"] == 0 and of["bits_per_byte"] is None


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_how_targets_fall_into_batches_does_not_show(targets_of_batches):
    nats = torch.linspace(0.1, 9.0, sum(targets_of_batches))
    scores = Scores()
    for part in nats.split(targets_of_batches):
        scores.update(part.sum(), (part < 2).sum(), len(part))
    found = scores.compute()
    assert found["targets"] == len(nats)
    if len(nats):
        assert found["loss"] == pytest.approx(float(nats.double().mean()), rel=1e-6)
        assert found["perplexity"] == pytest.approx(math.exp(float(nats.double().mean())), rel=1e-5)
        assert found["accuracy"] == int((nats < 2).sum()) / len(nats)


def test_small_sums_are_not_lost_beside_large_ones():
    scores = Scores()
    for nats in (1e8, *[1.0] * 100):
        scores.update(torch.tensor(nats), torch.tensor(0), 1)
    assert scores.compute()["loss"] == (1e8 + 100) / 101
    scores.reset()
    assert scores.compute()["targets"] == 0
