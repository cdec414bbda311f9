"""A word is hidden in full or not at all, and words are the tokenizer's own."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples.documents import Documents
from lmft.data.examples.windows import Lines
from lmft.data.formats.base import tokenize
from lmft.data.formats.text import Encoder
from lmft.data.store import open_or_build
from lmft.objectives.base import SPECIAL, WORD_START, Rows
from lmft.objectives.mlm import MaskedTokens
from lmft.objectives.whole_word import MaskedWords
from tests.helpers.models import TEXTS
from tests.helpers.rows import VOCABULARY, alone, drawn_rows, near, outcome, sample_of, tokenized

few = settings(max_examples=60, deadline=None)


def words_of(rows: Rows) -> list[list[list[int]]]:
    """The columns of each row's words, without special tokens: what lies between two flags, or the row's edge."""
    found = []
    for flags in rows.flags:
        words = []
        for column, flag in enumerate(flags):
            if flag & WORD_START or not column:
                words.append([])
            if not flag & SPECIAL:
                words[-1].append(column)
        found.append([word for word in words if word])
    return found


def with_long_words_split(words: list[list[int]], rate: float) -> list[list[int]]:
    """The words, and each token of what is too long for one."""
    num_tokens = sum(map(len, words))
    longest = min(max(4, int(rate * num_tokens)), num_tokens - 1)
    return [part for word in words for part in ([word] if len(word) <= longest else [[column] for column in word])]


@few
@given(rows=drawn_rows(), rate=st.floats(0.001, 1), epoch=st.integers(0, 3))
def test_a_word_is_hidden_in_full_or_not_at_all(rows, rate, epoch):
    found = outcome(MaskedWords(rate), rows, epoch=epoch)
    for chosen, words in zip(found.chosen, words_of(rows), strict=True):
        words = with_long_words_split(words, rate)
        hidden = [set(chosen[word].tolist()) for word in words]
        assert all(len(each) == 1 for each in hidden)
        assert chosen.sum() == sum(len(word) for word in words if chosen[word].all())
        assert chosen.any() == bool(words)
        if rate == 1:
            assert all(each == {True} for each in hidden)


@few
@given(rows=drawn_rows(), rate=st.floats(0.001, 1), epoch=st.integers(0, 3))
def test_an_example_is_the_same_in_any_company(rows, rate, epoch):
    together = outcome(MaskedWords(rate), rows, epoch=epoch)
    for row, length in enumerate(rows.lengths):
        single = outcome(MaskedWords(rate), alone(rows, row), epoch=epoch)
        np.testing.assert_array_equal(single.shown[0], together.shown[row, :length])
        np.testing.assert_array_equal(single.labels[0], together.labels[row, :length])


def test_words_are_the_tokenizers_own(any_tokenizer):
    texts = [*TEXTS, "Unbelievable ☃ fox☃jumps, a☃b!", "☃old", "x", "the  quick\n(brown) fox's"]
    rows, vocabulary = sample_of(any_tokenizer, texts, 20)
    found = outcome(MaskedWords(), rows, vocabulary)
    for row, text in enumerate(texts * 20):
        encoding = any_tokenizer(text)
        assert rows.tokens[row, : rows.lengths[row]].tolist() == encoding["input_ids"]
        unknown = set(any_tokenizer.all_special_ids)
        columns = [c for c, i in enumerate(encoding["input_ids"]) if i not in unknown]
        words = [list(word) for _, word in groupby(columns, key=lambda column: encoding.word_ids()[column])]
        for word in with_long_words_split(words, 0.2):
            assert len(set(found.chosen[row, word].tolist())) == 1
        assert found.chosen[row].any() == bool(columns)


def test_the_rate_is_one_of_words(any_tokenizer):
    rows, vocabulary = sample_of(any_tokenizer, TEXTS, 60)
    for rate in (0.2, 0.5):
        found = outcome(MaskedWords(rate), rows, vocabulary)
        firsts = np.zeros(rows.tokens.shape, bool)
        for row, words in enumerate(words_of(rows)):
            firsts[row, [word[0] for word in words]] = True
        assert near(int((found.chosen & firsts).sum()), int(firsts.sum()), rate)
        assert abs(found.chosen.sum() / ((rows.flags & SPECIAL) == 0).sum() - rate) < 0.1 * rate


def test_long_words_are_as_probable_as_short_ones():
    flags = np.zeros((3000, 12), np.uint8)
    flags[:, [0, 1, 2, 4, 8]] = WORD_START  # words of 1, 1, 2, 4 and 4 tokens
    rows = Rows(np.full(flags.shape, 7), flags, np.full(3000, 12), np.arange(3000))
    found = outcome(MaskedWords(0.5), rows)
    expected = 0.5 + 0.5**5 / 5  # where chance hides none, one of the five is hidden
    assert all(near(int(found.chosen[:, first].sum()), 3000, expected) for first in (0, 1, 2, 4, 8))


def test_the_default_rate():
    assert MaskedWords().mlm_probability == 0.2
    assert MaskedWords.needs_word_starts
    assert not MaskedTokens.needs_word_starts


def test_the_part_of_a_word_that_a_blocks_edge_cuts_off_is_a_word():
    rows = Rows(np.full((1, 4), 7), np.array([[0, 0, 1, 0]], np.uint8), np.array([4]), np.array([0]))
    chosen = {tuple(outcome(MaskedWords(0.5), rows, epoch=epoch).chosen[0].tolist()) for epoch in range(40)}
    assert chosen == {(True, True, False, False), (False, False, True, True), (True,) * 4}


def test_the_part_of_a_word_in_a_later_window_is_a_word(tokenizer, tmp_path):
    encoder = Encoder(tokenizer, True)

    def build(writer):
        tokenize(["unbelievableunbelievableunbelievable"], encoder, writer)
        writer.finish({"prefix": encoder.prefix, "suffix": encoder.suffix})

    documents = Documents(open_or_build(tmp_path / "store", encoder.dtype, build, print))
    assert documents.num_tokens >= 6
    lines = Lines(documents, 4, tokenizer.pad_token_id)
    rows = lines.rows(np.arange(len(lines)))
    ordinary = (rows.flags & SPECIAL) == 0
    assert (ordinary.sum(axis=1) == 2).any()
    chosen = np.mean([outcome(MaskedWords(), rows, epoch=epoch).chosen for epoch in range(200)], axis=0)
    # A window is part of one word, which is the whole example: its tokens are chosen one by one.
    assert (chosen[ordinary.sum(axis=1) == 2][:, 1:-1] < 0.8).all()


def test_a_word_that_begins_with_an_unknown_token_can_be_hidden():
    flags = np.array([[WORD_START | SPECIAL, 0, 0, WORD_START]], np.uint8)
    rows = Rows(np.array([[1, 7, 8, 9]]), flags, np.array([4]), np.array([0]))
    chosen = {tuple(outcome(MaskedWords(0.5), rows, epoch=epoch).chosen[0].tolist()) for epoch in range(40)}
    assert chosen == {(False, True, True, False), (False, False, False, True), (False, True, True, True)}


def test_words_are_shown_token_by_token_as_single_tokens_are():
    flags = np.zeros((600, 64), np.uint8)
    flags[:, ::4] = WORD_START
    tokens = np.random.default_rng(0).integers(5, VOCABULARY.size, flags.shape)
    rows = Rows(tokens, flags, np.full(600, 64), np.arange(600))
    found = outcome(MaskedWords(0.3), rows)
    masked = found.shown[found.chosen] == VOCABULARY.mask_id
    assert near(int(masked.sum()), masked.size, 0.8)
    per_word = masked.reshape(-1, 4).sum(axis=1)
    assert all(near(int((per_word == k).sum()), len(per_word), share) for k, share in [(4, 0.8**4), (0, 0.2**4)])


@pytest.mark.parametrize("wrong", [{"mlm_probability": 0}, {"mask_share": 2}, {"mask_share": 0.5, "random_share": 0.6}])
def test_shares_that_are_none(wrong):
    with pytest.raises(ValueError, match=r"objective\."):
        MaskedWords(**wrong)


def test_literal_special_tokens_are_words_that_are_never_hidden(any_tokenizer):
    mask = any_tokenizer.mask_token
    rows = tokenized(any_tokenizer, [f"the old{mask}fox {mask} jumps"])
    found = outcome(MaskedWords(1.0), rows, sample_of(any_tokenizer, ["x"], 1)[1])
    np.testing.assert_array_equal(found.chosen, ~np.isin(rows.tokens, any_tokenizer.all_special_ids))


@pytest.mark.parametrize(("size", "word"), [(60, 60), (60, 20), (12, 12), (12, 6), (5, 5), (2, 2)])
def test_the_share_of_targets_is_right_where_words_cannot_be_told(size, word):
    num = 2000
    flags = np.zeros((num, size), np.uint8)
    flags[:, ::word] = WORD_START
    rows = Rows(np.full(flags.shape, 7), flags, np.full(num, size), np.arange(num))
    chosen = outcome(MaskedWords(0.2), rows).chosen
    single = outcome(MaskedTokens(0.2), rows).chosen
    assert abs(chosen.mean() - single.mean()) < 0.02
    assert chosen.all(axis=1).mean() <= single.all(axis=1).mean()


def test_a_long_word_changes_nothing_about_the_others():
    flags = np.zeros((400, 40), np.uint8)
    flags[:, :11] = WORD_START  # ten words of a token, then one of thirty
    rows = Rows(np.full(flags.shape, 7), flags, np.full(400, 40), np.arange(400))
    short = flags.copy()
    short[:, 11:] = WORD_START
    others = Rows(rows.tokens, short, rows.lengths, rows.numbers)
    np.testing.assert_array_equal(outcome(MaskedWords(0.2), rows).chosen, outcome(MaskedWords(0.2), others).chosen)
