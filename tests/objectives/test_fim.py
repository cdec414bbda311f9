"""A rearranged row holds the same text, and everything around the piece stays where it is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import SPECIAL, Rows, Vocabulary
from lmft.objectives.causal import causal_batch
from lmft.objectives.fim import SENTINELS, FillInTheMiddle, longest_piece, sentinel_ids
from tests.helpers.rows import drawn_documents, found, near

few = settings(max_examples=150, deadline=None)
shares = st.sampled_from([0.0, 0.5, 1.0])

PRE, SUF, MID = 50, 51, 52
IDS = dict(zip(SENTINELS[0], (PRE, SUF, MID), strict=True))
VOCABULARY = Vocabulary(53, None, np.arange(5, 50), pad_id=3, ids=IDS)


def batch_of(rows, fim_rate=1.0, spm_share=0.5, seed=0):
    return FillInTheMiddle(fim_rate, spm_share)(rows, VOCABULARY, TokenNoise(seed, 0, rows.numbers))


def one_piece(num, length):
    tokens = np.tile(np.arange(length), (num, 1)) % 45 + 5
    documents = np.zeros_like(tokens)
    return Rows(tokens, np.zeros(tokens.shape, np.uint8), np.full(num, length), np.arange(num), documents)


def piece_of(rows, row):
    """(begin, length) of the longest run, by looking at every token."""
    best = begin = length = 0
    for column in range(rows.lengths[row]):
        joins = length and rows.documents[row, column] == rows.documents[row, column - 1]
        length = 0 if rows.flags[row, column] & SPECIAL else length + 1 if joins else 1
        if length > best:
            best, begin = length, column - length + 1
    return begin, best


def undone(shown, begin, length):
    """The row as it was: whichever way the piece was written, what follows MID belongs before the suffix."""
    pre, suf, mid = (shown.index(sentinel) for sentinel in (PRE, SUF, MID))
    end = begin + length + 3
    assert begin == pre < suf < mid < end
    piece = shown[pre + 1 : suf] + shown[mid + 1 : end] + shown[suf + 1 : mid]
    return shown[:begin] + piece + shown[end:]


@few
@given(rows=drawn_documents(), fim_rate=shares, spm_share=shares, seed=st.integers(0, 5))
def test_undoing_it_gives_the_row_back(rows, fim_rate, spm_share, seed):
    tokens = rows.tokens.copy()
    shown = batch_of(rows, fim_rate, spm_share, seed)["input_ids"]
    np.testing.assert_array_equal(rows.tokens, tokens)
    lengths = []
    for row, length in enumerate(rows.lengths):
        begin, piece = piece_of(rows, row)
        changed = PRE in shown[row]
        assert changed == (piece >= 3) if fim_rate == 1 else not (changed and fim_rate == 0)
        lengths.append(length + 3 * changed)
        new = shown[row, : lengths[-1]].tolist()
        assert (undone(new, begin, piece) if changed else new) == rows.tokens[row, :length].tolist()
        assert (shown[row, lengths[-1] :] == VOCABULARY.pad_id).all()
    assert shown.shape[1] == max(lengths)


@few
@given(rows=drawn_documents())
def test_the_piece_is_the_longest_run_of_one_document_without_special_tokens(rows):
    begin, length = longest_piece(rows)
    for row in range(len(rows.lengths)):
        expected = piece_of(rows, row)
        assert length[row] == expected[1] and (begin[row] == expected[0] or not length[row])


@few
@given(rows=drawn_documents(), seed=st.integers(0, 5))
def test_what_is_known_of_a_token_moves_with_it(rows, seed):
    names = np.arange(rows.tokens.size).reshape(rows.tokens.shape) + 100  # to tell where each token went
    noise = TokenNoise(seed, 0, rows.numbers)
    new = FillInTheMiddle(fim_rate=1.0).rearranged(replace(rows, tokens=names), VOCABULARY, noise)
    row, column = np.nonzero(new.tokens >= 100)
    old = np.divmod(new.tokens[row, column] - 100, rows.tokens.shape[1])
    assert len(row) == rows.lengths.sum()
    np.testing.assert_array_equal(row, old[0])
    np.testing.assert_array_equal(new.flags[row, column], rows.flags[old])
    np.testing.assert_array_equal(new.documents[row, column], rows.documents[old])
    may_be_target = np.ones(rows.tokens.shape, bool) if rows.trainable is None else rows.trainable.copy()
    if rows.num_seen is not None:
        may_be_target &= np.arange(rows.tokens.shape[1]) >= rows.num_seen[:, None]
    if new.trainable is not None:
        np.testing.assert_array_equal(new.trainable[row, column], may_be_target[old])
    assert may_be_target.all() or new.trainable is not None
    assert new.num_seen is None

    row, column = np.nonzero(np.isin(new.tokens, (PRE, SUF, MID)))
    begin = np.array([piece_of(rows, each)[0] for each in row], int)
    assert (new.flags[row, column] == SPECIAL).all()
    assert (new.documents[row, column] == rows.documents[row, begin]).all()
    assert new.trainable is None or new.trainable[row, column].all()

    beyond = np.arange(new.tokens.shape[1]) >= new.lengths[:, None]
    assert (new.flags[beyond] == SPECIAL).all() and (new.documents[beyond] == -1).all()
    batch = batch_of(rows, seed=seed)
    assert found(batch) == found(causal_batch(replace(new, tokens=batch["input_ids"])))


@few
@given(rows=drawn_documents(), fim_rate=shares, seed=st.integers(0, 5))
def test_a_row_is_the_same_in_any_company(rows, fim_rate, seed):
    together = batch_of(rows, fim_rate, seed=seed)["input_ids"]
    for row, length in enumerate(rows.lengths):
        one = slice(row, row + 1)
        fields = {name: getattr(rows, name)[one, :length] for name in ("tokens", "flags", "documents")} | {
            "lengths": rows.lengths[one],
            "numbers": rows.numbers[one],
        }
        single = batch_of(Rows(**fields), fim_rate, seed=seed)["input_ids"][0]
        np.testing.assert_array_equal(single, together[row, : len(single)])
        assert (together[row, len(single) :] == VOCABULARY.pad_id).all()


def test_rates():
    num, length = 3000, 40
    rows = one_piece(num, length)
    for fim_rate, spm_share in [(0.5, 0.5), (0.9, 0.2), (1.0, 1.0), (1.0, 0.0), (0.0, 0.5)]:
        shown = batch_of(rows, fim_rate, spm_share)["input_ids"]
        changed = (shown == PRE).any(axis=1)
        assert near(int(changed.sum()), num, fim_rate)
        between = (shown == SUF).argmax(axis=1) - (shown == PRE).argmax(axis=1) - 1  # the prefix, in PSM
        no_prefix = 1 - (length / (length + 1)) ** 2
        assert near(int((between[changed] > 0).sum()), int(changed.sum()), (1 - spm_share) * (1 - no_prefix))


def test_cuts_are_anywhere_alike():
    num, length = 20_000, 6
    shown = batch_of(one_piece(num, length), 1.0, 0.0)["input_ids"]
    first = (shown == SUF).argmax(axis=1) - 1
    second = length - ((shown == MID).argmax(axis=1) - (shown == SUF).argmax(axis=1) - 1)
    for low in range(length + 1):
        for high in range(low, length + 1):
            ways = 1 if low == high else 2
            count = int(((first == low) & (second == high)).sum())
            assert near(count, num, ways / (length + 1) ** 2)


def test_both_ways_of_writing_it():
    tokens = np.array([[1, 10, 11, 12, 13, 14, 2, 20, 21]])
    flags = np.where(tokens < 5, SPECIAL, 0).astype(np.uint8)
    rows = Rows(tokens, flags, np.array([9]), np.zeros(1, np.int64), np.array([[0] * 7 + [1] * 2]))
    psm, spm = (batch_of(rows, 1.0, share, seed=1)["input_ids"][0].tolist() for share in (0.0, 1.0))
    assert psm == [1, PRE, 10, 11, SUF, 14, MID, 12, 13, 2, 20, 21]
    assert spm == [1, PRE, SUF, 14, MID, 10, 11, 12, 13, 2, 20, 21]


def test_a_block_is_no_longer_than_asked_for():
    objective = FillInTheMiddle(fim_rate=1.0)
    rows = one_piece(20, objective.num_raw_tokens(64))
    assert batch_of(rows)["input_ids"].shape == (20, 64)


@pytest.mark.parametrize("names", SENTINELS, ids=lambda names: names[0])
def test_sentinels_that_a_tokenizer_has_are_used(names):
    ids = {"<eos>": 1, **{name: 40 + i for i, name in enumerate(names)}}
    assert FillInTheMiddle().new_tokens(ids.keys()) == []
    assert sentinel_ids(ids) == (40, 41, 42)
    FillInTheMiddle().check(replace(VOCABULARY, ids=ids), 64)


def test_sentinels_are_taken_together():
    ids = {"<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<fim_prefix>": 3, "<fim_suffix>": 4, "<fim_middle>": 5}
    assert sentinel_ids(ids) == (3, 4, 5)
    both = ids | {"<|fim_middle|>": 6}
    assert sentinel_ids(both) == (1, 2, 6)


def test_sentinels_that_a_tokenizer_lacks():
    known = ["<eos>", "<fim_prefix>"]
    assert FillInTheMiddle().new_tokens(known) == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    with pytest.raises(ValueError, match="lacks the tokens of filling in the middle"):
        FillInTheMiddle().check(replace(VOCABULARY, ids=dict.fromkeys(known, 1)), 64)


def test_blocks_too_short():
    FillInTheMiddle().check(VOCABULARY, 6)
    with pytest.raises(ValueError, match="blocks of 6 tokens or more"):
        FillInTheMiddle().check(VOCABULARY, 5)


@pytest.mark.parametrize("wrong", [{"fim_rate": 1.1}, {"fim_rate": -0.1}, {"spm_share": float("nan")}])
def test_shares_that_are_none(wrong):
    with pytest.raises(ValueError, match=f"objective.{next(iter(wrong))}="):
        FillInTheMiddle(**wrong)
