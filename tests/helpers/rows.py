"""Rows to hide tokens in: drawn at random, or cut from tokenised text; and what an objective made of them."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from lmft.assembly.tokens import vocabulary_of
from lmft.data.formats.text import Encoder
from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import IGNORED, SPECIAL, WORD_START, Rows, Vocabulary

PAD, MASK = 0, 4
VOCABULARY = Vocabulary(50, MASK, np.arange(5, 50))


@st.composite
def drawn_rows(draw) -> Rows:
    """1 to 5 rows of 1 to 20 tokens, any of them special, any of them a word's first."""
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    shape = (len(lengths), max(lengths))
    draw_token = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = draw_token.integers(5, VOCABULARY.size, shape)
    flags = np.where(draw_token.random(shape) < draw(st.floats(0, 1)), SPECIAL, 0).astype(np.uint8)
    flags |= np.where(draw_token.random(shape) < draw(st.floats(0, 1)), WORD_START, 0).astype(np.uint8)
    beyond = np.arange(shape[1]) >= np.array(lengths)[:, None]
    tokens[beyond], flags[beyond] = PAD, SPECIAL
    tokens[(flags & SPECIAL) != 0] = draw(st.integers(0, 4))
    numbers = draw_token.permutation(1000)[: len(lengths)]
    return Rows(tokens, flags, np.array(lengths), numbers)


def tokenized(tokenizer, texts: list[str], width: int | None = None) -> Rows:
    """Each text in a row, with its separators."""
    encoded = Encoder(tokenizer, word_starts=True).encode(texts)
    lengths = encoded.lengths
    tokens = np.full((len(texts), width or lengths.max()), tokenizer.pad_token_id or 0)
    flags = np.full(tokens.shape, SPECIAL)
    for row, (length, end) in enumerate(zip(lengths, np.cumsum(lengths), strict=True)):
        tokens[row, :length], flags[row, :length] = (part[end - length : end] for part in encoded[:2])
    return Rows(tokens, flags, lengths, np.arange(len(texts)))


def alone(rows: Rows, row: int) -> Rows:
    """One of the rows, cut to its length."""
    one, length = slice(row, row + 1), rows.lengths[row]
    tokens, flags = rows.tokens[one, :length], rows.flags[one, :length]
    return replace(rows, tokens=tokens, flags=flags, lengths=rows.lengths[one], numbers=rows.numbers[one])


class Outcome(NamedTuple):
    """What became of rows, as rectangles [B, T]."""

    batch: dict[str, np.ndarray]
    shown: np.ndarray
    chosen: np.ndarray  # bool: the targets
    labels: np.ndarray  # their ids, IGNORED elsewhere


def outcome(objective, rows: Rows, vocabulary: Vocabulary = VOCABULARY, seed: int = 0, epoch: int = 0) -> Outcome:
    """Applies the objective, and checks what holds of every batch."""
    before = rows.tokens.copy(), rows.flags.copy()
    batch = objective(rows, vocabulary, TokenNoise(seed, epoch, rows.numbers))
    np.testing.assert_array_equal(rows.tokens, before[0])
    np.testing.assert_array_equal(rows.flags, before[1])
    again = objective(rows, vocabulary, TokenNoise(seed, epoch, rows.numbers))
    assert all(np.array_equal(again[name], batch[name]) for name in batch | again)

    real = batch["targets"] != IGNORED
    num_targets = int(real.sum())
    assert real[:num_targets].all()  # the padding comes last
    index, ids = batch["target_index"][:num_targets], batch["targets"][:num_targets]
    assert (np.diff(index) > 0).all()
    labels = np.full(rows.tokens.shape, IGNORED)
    labels.ravel()[index] = ids
    chosen = labels != IGNORED
    assert batch["input_ids"].dtype == batch["target_index"].dtype == batch["targets"].dtype == np.int64
    assert not ((rows.flags & SPECIAL) != 0)[chosen].any()
    np.testing.assert_array_equal(labels[chosen], rows.tokens[chosen])
    np.testing.assert_array_equal(batch["input_ids"][~chosen], rows.tokens[~chosen])
    allowed = np.append(vocabulary.ordinary_ids, vocabulary.mask_id)
    changed = chosen & (batch["input_ids"] != rows.tokens)
    assert np.isin(batch["input_ids"][changed], allowed).all()
    return Outcome(batch, batch["input_ids"], chosen, labels)


def sample_of(tokenizer, texts: list[str], copies: int) -> tuple[Rows, Vocabulary]:
    """Many rows of the same texts, each with a number, hence noise, of its own."""
    return tokenized(tokenizer, texts * copies), vocabulary_of(tokenizer)


def near(count: int, total: int, share: float, deviations: float = 4.5) -> bool:
    """Whether so many of so many are what a share of them may be by chance."""
    return abs(count - total * share) <= deviations * (total * share * (1 - share)) ** 0.5 + 1e-9


@st.composite
def drawn_documents(draw) -> Rows:
    """Rows with documents of 1 to many tokens, isolated or not; of some, not all tokens may be targets."""
    rows = draw(drawn_rows())
    draw_number = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = rows.tokens.shape
    documents = (draw_number.random(shape) < draw(st.floats(0, 1))).cumsum(axis=1) + 7
    documents[np.arange(shape[1]) >= rows.lengths[:, None]] = -1
    trainable = draw_number.random(shape) < draw(st.floats(0, 1)) if draw(st.booleans()) else None
    num_seen = draw_number.integers(0, rows.lengths + 1) if draw(st.booleans()) else None
    isolated = draw(st.booleans())
    return replace(rows, documents=documents, isolated=isolated, trainable=trainable, num_seen=num_seen)


def found(batch):
    """(where, what) of each target, in order."""
    num = int((batch["targets"] != IGNORED).sum())
    assert (batch["targets"][num:] == IGNORED).all() and (batch["target_index"][num:] == 0).all()
    return list(zip(batch["target_index"][:num].tolist(), batch["targets"][:num].tolist(), strict=True))
