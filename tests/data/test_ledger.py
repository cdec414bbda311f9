"""The unigram baseline against counting by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from lmft.data import ledger
from lmft.data.examples import documents
from lmft.data.examples.documents import Documents
from lmft.data.ledger import unigram_perplexity
from lmft.objectives.base import ANSWER
from tests.helpers.stores import Store

VOCABULARY = 60


def store_of(lengths: list[int], seed: int) -> Store:
    draw = np.random.default_rng(seed)
    return Store([(10 + draw.geometric(0.1, n).clip(1, 45)).tolist() for n in lengths], [1], [2])


def by_hand(train: Store, validation: Store) -> float:
    counts = Counter(token for body in train.bodies for token in body)
    total = sum(counts.values()) + VOCABULARY
    tokens = [token for body in validation.bodies for token in body]
    return math.exp(-sum(math.log((counts[token] + 1) / total) for token in tokens) / len(tokens))


@pytest.mark.parametrize("stretch", [1 << 16, 7, 100])
def test_equal_to_counting_by_hand(stretch, monkeypatch):
    train, validation = store_of([40, 1, 0, 90], 1), store_of([30, 20], 2)
    monkeypatch.setattr(documents, "_TOKENS", stretch)
    found = unigram_perplexity(Documents(train), Documents(validation), VOCABULARY)
    assert found == pytest.approx(by_hand(train, validation), rel=1e-12)


def test_a_token_that_training_never_saw_counts():
    train, validation = Store([[10] * 99]), Store([[11]])
    assert unigram_perplexity(Documents(train), Documents(validation), 20) == pytest.approx(99 + 20)


def test_uniform_text_has_the_vocabularys_size():
    text = Store([[*range(10, VOCABULARY)] * 200])
    assert unigram_perplexity(Documents(text), Documents(text), VOCABULARY) == pytest.approx(50, rel=0.002)


def test_special_tokens_are_never_predicted():
    train, validation = Store([[10, 11]] * 9, [1, 2], [5]), Store([[10]], [1, 2], [5])
    assert unigram_perplexity(Documents(train), Documents(validation), 12) == pytest.approx(30 / 10)
    nothing = Store([[], []], [1], [2])
    assert unigram_perplexity(Documents(train), Documents(nothing), 12) is None


def test_only_so_much_is_counted(monkeypatch):
    monkeypatch.setattr(ledger, "_MOST_COUNTED", 10)
    train, validation = Store([[10] * 10, [11] * 1000]), Store([[10]])
    assert unigram_perplexity(Documents(train), Documents(validation), 12) == pytest.approx((10 + 12) / 11)


def test_only_what_may_be_a_target_counts():
    train = Store([[10] * 4 + [11]], answers=frozenset({11}))
    validation = Store([[10, 10, 11]], answers=frozenset({11}))
    train, validation = (Documents(store, None, int(ANSWER)) for store in (train, validation))
    assert unigram_perplexity(train, validation, 12) == pytest.approx((1 + 12) / 2)
