"""Text infilling hides the right share, in spans of the right lengths, and the decoder says the whole original."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import SPECIAL
from lmft.objectives.rearranging import is_special
from lmft.objectives.text_infilling import TextInfilling
from tests.helpers.rows import drawn_rows, near
from tests.helpers.seq2seq import EOS, MASK, VOCABULARY, examples_of, numbered, texts_of, with_ends

few = settings(max_examples=60, deadline=None)
WIDE = replace(VOCABULARY, size=1000)
SPANS_ONLY = TextInfilling(permute_sentences=0.0)
NONE = {"mask_ratio": 0.0, "permute_sentences": 0.0}


def by_column(rows):
    """The same rows with 100 + its column for a token, so that each can be told from the others."""
    return replace(rows, tokens=np.where(is_special(rows), 50, 100) + np.arange(rows.tokens.shape[1]))


def gaps(inputs, text):
    """(masks, hidden tokens) before the first shown token of a text, between each two, and after the last."""
    found, masks, place = [], 0, 0
    for token in inputs:
        if token == MASK:
            masks += 1
        else:
            found.append((masks, text.index(token) - place))
            masks, place = 0, text.index(token) + 1
    return [*found, (masks, len(text) - place)]


def poisson(mean, length):
    return math.exp(-mean) * mean**length / math.factorial(length)


@few
@given(rows=drawn_rows(), ratio=st.floats(0, 1), mean=st.floats(0.2, 9), epoch=st.integers(0, 3))
def test_masks_stand_where_tokens_are_hidden(rows, ratio, mean, epoch):
    rows = by_column(rows)
    found = examples_of(replace(SPANS_ONLY, mask_ratio=ratio, poisson_lambda=mean), rows, WIDE, epoch=epoch)
    for row, (text, example) in enumerate(zip(texts_of(rows), found, strict=True)):
        assert example.said == text
        assert len(example.inputs) <= len(text)
        shown = [token for token in example.inputs if token != MASK]
        assert shown == [token for token in text if token in shown]
        assert set(shown) >= set(rows.tokens[row][is_special(rows)[row]][: len(text)]) & set(text)
        assert all(masks >= 1 for masks, hidden in gaps(example.inputs, text) if hidden)
        if ratio == 0:
            assert example.inputs == text


@pytest.mark.parametrize(("ratio", "mean"), [(0.3, 3.0), (0.3, 3.5), (0.15, 1.0)])
@pytest.mark.parametrize("length", [512, 60])
def test_the_share_and_the_lengths_of_spans(ratio, mean, length):
    num = 1_000_000 // length
    objective = replace(SPANS_ONLY, mask_ratio=ratio, poisson_lambda=mean)
    noise = TokenNoise(0, 0, np.arange(num))
    hidden, _, _ = objective.spans(np.ones((num, length), bool), noise)
    assert abs(hidden.mean() / ratio - 1) < 0.01
    lengths, used = objective.span_lengths(np.full(num, length), noise)
    assert lengths.sum() == hidden.sum() and not lengths[~used].any()
    shares = np.bincount(lengths[used]) / used.sum()
    expected = np.array([poisson(mean, n) for n in range(len(shares))])
    assert np.abs(shares - expected).sum() / 2 < 0.01
    assert abs(lengths.sum() / used.sum() / mean - 1) < 0.01


def test_what_is_shown_has_the_same_shares():
    rows = numbered(800, 256)
    rows.flags[:, 40] = SPECIAL  # which cuts some spans in two
    found = [gaps(example.inputs, range(100, 356)) for example in examples_of(SPANS_ONLY, rows, WIDE)]
    num_hidden = sum(hidden for row in found for _, hidden in row)
    num_masks = sum(masks for row in found for masks, _ in row)
    assert abs(num_hidden / (800 * 255) / 0.3 - 1) < 0.01
    assert abs(num_hidden / num_masks / 3 - 1) < 0.01
    lengths = Counter(hidden for row in found for masks, hidden in row if masks == 1)
    assert sum(abs(lengths[n] / lengths.total() - poisson(3, n)) for n in range(20)) / 2 < 0.015


def test_special_tokens_stay_where_they_are_and_cut_spans():
    rows = numbered(300, 30)
    rows.flags[:, [0, 14, 15, 29]] = SPECIAL
    found = examples_of(replace(SPANS_ONLY, mask_ratio=0.7), rows, WIDE)
    for example in found:
        assert (example.inputs[0], example.inputs[-1]) == (100, 129)
        place = example.inputs.index(114)
        assert example.inputs[place + 1] == 115
        assert example.said == list(range(100, 130))
    assert any(example.inputs[-3:] == [128, MASK, 129] for example in found)  # put in where the text ends


class TestSentences:
    def sentences(self, text, ends=(5, 6)):
        found = [[]]
        for token in text:
            found[-1].append(token)
            if token in ends:
                found.append([])
        return [tuple(sentence) for sentence in found if sentence]

    @few
    @given(rows=drawn_rows(), epoch=st.integers(0, 3))
    def test_documents_keep_their_sentences_and_places(self, rows, epoch):
        rows.tokens[:, ::4] = np.where(is_special(rows), rows.tokens, 5)[:, ::4]
        rows = with_ends(rows)
        special = is_special(rows)
        found = examples_of(TextInfilling(mask_ratio=0), rows, epoch=epoch)
        for row, (text, example) in enumerate(zip(texts_of(rows), found, strict=True)):
            assert example.said == text
            assert len(example.inputs) == len(text)
            start = 0
            for stop in [*np.flatnonzero(special[row, : len(text)]), len(text)]:
                before, after = (self.sentences(tokens[start:stop]) for tokens in (text, example.inputs))
                if before and before[-1][-1] in (5, 6):
                    assert Counter(before) == Counter(after)
                assert Counter(text[start:stop]) == Counter(example.inputs[start:stop])
                assert text[stop : stop + 1] == example.inputs[stop : stop + 1]
                start = stop + 1

    @pytest.mark.parametrize("share", [1.0, 0.4])
    def test_every_order_is_as_probable_in_a_share_of_the_rows(self, share):
        rows, num = numbered(4000, 9), 4000
        rows.tokens[:] = [50, 51, 5, 52, 6, 53, 54, 55, 5]
        rows = with_ends(rows)
        orders = Counter(
            tuple(self.sentences(example.inputs))
            for example in examples_of(TextInfilling(mask_ratio=0, permute_sentences=share), rows)
        )
        unchanged = ((50, 51, 5), (52, 6), (53, 54, 55, 5))
        assert len(orders) == 6
        for order, count in orders.items():
            assert near(count, num, share / 6 + (1 - share) * (order == unchanged))


def test_documents_begin_at_a_random_token():
    rows, num = numbered(3000, 8), 3000
    rows.flags[:, [0, 5]] = SPECIAL  # documents of 4 and 2 tokens
    starts = Counter()
    for example in examples_of(TextInfilling(**NONE, rotate=0.5), rows, WIDE):
        first, second = example.inputs[1:5], example.inputs[6:]
        for document in (first, second):
            cut = document.index(min(document))
            assert document[cut:] + document[:cut] == sorted(document)
        assert (example.inputs[0], example.inputs[5], example.said) == (100, 105, list(range(100, 108)))
        starts[first[0], second[0]] += 1
    for (first, second), count in starts.items():
        assert near(count, num, 0.5 / 8 + 0.5 * ((first, second) == (101, 106)))
    assert len(starts) == 8


def test_single_tokens_are_masked_or_left_out():
    rows, num = numbered(400, 100), 400 * 99
    rows.flags[:, 0] = SPECIAL
    found = examples_of(TextInfilling(**NONE, token_mask_ratio=0.2, token_delete_ratio=0.1), rows, WIDE)
    masked = sum(example.inputs.count(MASK) for example in found)
    assert near(masked, num, 0.2)
    assert near(sum(100 - len(example.inputs) for example in found), num, 0.1)
    assert all(example.inputs[0] == 100 and example.said == list(range(100, 200)) for example in found)
    everything = examples_of(TextInfilling(**NONE, token_delete_ratio=1.0), rows, WIDE)
    assert all(example.inputs == [100] for example in everything)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"mask_id": None}, "mask token")],
)
def test_vocabularies_that_do_not_do(wrong, message):
    vocabulary = replace(VOCABULARY, **wrong)
    with pytest.raises(ValueError, match=message):
        TextInfilling().check(vocabulary, 64)
    if vocabulary.mask_id is not None:
        SPANS_ONLY.check(vocabulary, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_ratio": 1.1}, {"mask_ratio": float("nan")}, {"poisson_lambda": 0}, {"poisson_lambda": float("nan")},
        {"permute_sentences": -1}, {"rotate": 2}, {"token_mask_ratio": 0.6, "token_delete_ratio": 0.6},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"objective\."):
        TextInfilling(**wrong)


def test_an_end_of_text_in_the_text_is_like_any_separator():
    rows = numbered(50, 12)
    rows.tokens[:, 6], rows.flags[:, 6] = EOS, SPECIAL
    assert all(example.inputs.count(EOS) == 1 for example in examples_of(SPANS_ONLY, rows, WIDE))
