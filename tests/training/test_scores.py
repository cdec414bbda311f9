import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.training.scores import Scores, perplexity
from tests.helpers.closeness import assert_close


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
        assert_close(found["loss"], nats.double().mean(), 40)  # a batch's sum is one of 40 numbers at most
        assert found["perplexity"] == math.exp(found["loss"])
        assert found["accuracy"] == int((nats < 2).sum()) / len(nats)


@pytest.mark.parametrize("tokens_per_byte", [0.25, 1.0, None])
def test_bits_per_byte_are_those_of_the_texts_code(tokens_per_byte):
    scores = Scores(tokens_per_byte)
    for nats, num_targets in ((80.0, 10), (16.0, 2)):
        scores.update(torch.tensor(nats), torch.tensor(0), num_targets)
    # 8 nats a token: 400 bytes in 100 tokens, 0.25 a byte, take 100 * 8 / ln 2 bits
    expected = None if tokens_per_byte is None else pytest.approx(tokens_per_byte * 8 / math.log(2))
    assert scores.compute()["bits_per_byte"] == expected


def test_bytes_as_tokens_that_are_equally_probable_take_eight_bits_each():
    scores = Scores(tokens_per_byte=1.0)
    scores.update(torch.tensor(50 * math.log(256)), torch.tensor(0), 50)
    assert scores.compute()["bits_per_byte"] == pytest.approx(8)


def test_small_sums_are_not_lost_beside_large_ones():
    scores = Scores()
    for nats in (1e8, *[1.0] * 100):
        scores.update(torch.tensor(nats), torch.tensor(0), 1)
    assert scores.compute()["loss"] == (1e8 + 100) / 101
    scores.reset()
    assert scores.compute()["targets"] == 0
