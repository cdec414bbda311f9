"""Examples against slow re-implementations that copy lists: same tokens, and every token accounted for."""

from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples import Blocks, Documents, Sample, is_held_out, split_by_content
from lmft.data.store import content_hash
from lmft.data.windows import Lines, Packs
from lmft.objectives.base import ANSWER, SPECIAL, WORD_START, Rows

PAD = 9_999
few = settings(max_examples=60, deadline=None)


@dataclass
class Store:
    """A token store in memory: bodies of numbered tokens, between these separators."""

    bodies: list[list[int]]
    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)
    texts: list[str] | None = None
    answers: frozenset[int] = frozenset()  # the tokens that are ANSWER

    def __post_init__(self):
        self.all = [[*self.prefix, *body, *self.suffix] for body in self.bodies]
        self.tokens = np.array([*chain(*self.all)], np.uint16)
        self.flags = np.where(self.tokens < 10, SPECIAL | WORD_START, self.tokens % 3 == 0).astype(np.uint8)
        self.flags[np.isin(self.tokens, [*self.answers])] |= ANSWER
        self.offsets = np.cumsum([0, *map(len, self.all)])
        self.bytes = np.array([4 * len(body) for body in self.bodies], np.uint32)
        texts = self.texts or [str(body) for body in self.bodies]
        self.hashes = np.array([content_hash(text) for text in texts], np.uint64)


@st.composite
def stores(draw, min_documents: int = 0):
    """Documents of 0 to 12 tokens, each token another number, and up to two separators on each side.

    Some of the tokens are answers, anywhere.
    """
    lengths = draw(st.lists(st.integers(0, 12), min_size=min_documents, max_size=12))
    ends = np.cumsum([10, *lengths])
    bodies = [[*range(start, stop)] for start, stop in pairwise(ends.tolist())]
    chance = np.random.default_rng(draw(st.integers(0, 2**32))).random(ends[-1])
    answers = frozenset(np.flatnonzero(chance < draw(st.sampled_from([0, 0.05, 0.2, 0.8]))).tolist()) - {*range(10)}
    prefix, suffix = range(1, 1 + draw(st.integers(0, 2))), range(5, 5 + draw(st.integers(0, 2)))
    return Store(bodies, [*prefix], [*suffix], answers=answers)


@st.composite
def parts(draw, min_documents: int = 0):
    """A store, and some of its documents (or all of them, unnamed)."""
    store = draw(stores(min_documents))
    chosen = draw(st.none() | st.lists(st.booleans(), min_size=len(store.all), max_size=len(store.all)))
    return store, None if chosen is None else np.flatnonzero(np.array(chosen, bool))


def numbers_of(store: Store, numbers: np.ndarray | None) -> list[int]:
    return [*range(len(store.all))] if numbers is None else numbers.tolist()


def flags_of(tokens: list[int]) -> list[int]:
    return [int(SPECIAL | WORD_START) if token < 10 else int(token % 3 == 0) for token in tokens]


def assert_rows(
    rows: Rows, expected: list[list[int]], numbers: list[int], answers: frozenset[int] | None = None
) -> None:
    """answers: the tokens that may be targets; None: all may."""
    width = max(map(len, expected))
    assert rows.tokens.dtype == np.int64
    assert rows.flags.dtype == np.uint8
    assert rows.tokens.tolist() == [line + [PAD] * (width - len(line)) for line in expected]
    assert rows.lengths.tolist() == [len(line) for line in expected]
    assert rows.numbers.tolist() == numbers
    if answers is None:
        assert rows.trainable is None
    else:
        assert rows.trainable.tolist() == [[token in answers for token in row] for row in rows.tokens.tolist()]
    padding = [int(SPECIAL)]
    special = [[flag & SPECIAL for flag in flags_of(line)] + padding * (width - len(line)) for line in expected]
    assert (rows.flags & SPECIAL).tolist() == special
    for flags, line in zip(rows.flags.tolist(), expected, strict=True):
        assert [f & WORD_START for f, t in zip(flags, line, strict=False) if t >= 10] == [
            f & WORD_START for f, t in zip(flags_of(line), line, strict=True) if t >= 10
        ]


def assert_all_examples(examples, expected: list[list[int]], data, answers: frozenset[int] | None = None) -> None:
    """Alone, all together, and some of them in any order."""
    assert len(examples) == len(expected)
    for number, line in enumerate(expected):
        assert_rows(examples.rows(np.array([number])), [line], [number], answers)
    if expected:
        some = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=6))
        for chosen in (some, [*range(len(expected))]):
            assert_rows(examples.rows(np.array(chosen)), [expected[number] for number in chosen], chosen, answers)


class TestDocuments:
    @few
    @given(part=parts())
    def test_they_are_those_chosen(self, part):
        store, numbers = part
        documents, chosen = Documents(store, numbers), numbers_of(*part)
        assert len(documents) == len(chosen)
        for start, length, number in zip(documents.starts, documents.lengths, chosen, strict=True):
            assert store.tokens[start : start + length].tolist() == store.all[number]
        assert documents.num_tokens == sum(len(store.all[number]) for number in chosen)
        assert documents.num_bytes == sum(4 * len(store.bodies[number]) for number in chosen)


class TestBlocks:
    @few
    @given(part=parts(), block_size=st.integers(1, 20), bit=st.sampled_from([0, ANSWER]), data=st.data())
    def test_they_are_windows_over_the_joined_documents(self, part, block_size, bit, data):
        store, numbers = part
        stream = [*chain(*(store.all[number] for number in numbers_of(*part)))]
        expected = [stream[start : start + block_size] for start in range(0, len(stream), block_size)]
        blocks = Blocks(Documents(store, numbers, bit), block_size, PAD)
        assert_all_examples(blocks, expected, data, store.answers if bit else None)
        assert blocks.num_tokens == len(stream)
        assert blocks.num_repeated == blocks.num_dropped == blocks.documents_cut == 0
        assert blocks.documents_dropped == {}
        assert blocks.lengths is None  # they hardly differ
        if expected:
            rows = blocks.rows(np.arange(len(blocks)))
            assert (rows.documents, rows.isolated, rows.num_seen) == (None, False, None)

    @few
    @given(part=parts(min_documents=1), block_size=st.integers(1, 20), isolated=st.booleans())
    def test_each_token_knows_its_document(self, part, block_size, isolated):
        store, numbers = part
        documents = Documents(store, numbers)
        blocks = Blocks(documents, block_size, PAD, isolated, numbered=not isolated)
        if not len(blocks):
            return
        of_stream = [*chain(*([number] * len(store.all[number]) for number in numbers_of(*part)))]
        rows = blocks.rows(np.arange(len(blocks)))
        assert rows.isolated == isolated
        plain = Blocks(documents, block_size, PAD).rows(np.arange(len(blocks)))
        np.testing.assert_array_equal(rows.tokens, plain.tokens)
        for found, length, start in zip(
            rows.documents.tolist(), rows.lengths, range(0, 10**6, block_size), strict=False
        ):
            assert found[:length] == of_stream[start : start + length]
            assert found[length:] == [-1] * (len(found) - length)

    def test_only_the_stream_has_an_end(self):
        store = Store([[*range(10, 17)], [*range(17, 30)]])
        blocks = Blocks(Documents(store), 8, PAD)
        assert blocks.rows(np.array([0, 1])).lengths.tolist() == [8, 8]
        last = blocks.rows(np.array([2, 0]))
        assert last.lengths.tolist() == [4, 8]
        assert last.tokens[0].tolist() == [26, 27, 28, 29, PAD, PAD, PAD, PAD]
        assert last.flags[0, 4:].tolist() == [SPECIAL] * 4
        assert blocks.rows(np.array([2])).tokens.shape == (1, 4)

    def test_rows_are_copies(self):
        store = Store([[*range(10, 30)]])
        rows = Blocks(Documents(store), 8, PAD).rows(np.array([0]))
        rows.tokens[:], rows.flags[:] = 0, 0
        assert store.tokens.tolist() == [*range(10, 30)]
        assert store.flags.any()


class TestSample:
    @few
    @given(part=parts(min_documents=1), size=st.integers(1, 9), seed=st.integers(0, 99), kind=st.integers(0, 2))
    def test_it_keeps_numbers_and_accounts(self, part, size, seed, kind):
        documents = Documents(*part, ANSWER)
        examples = [Blocks(documents, 5, PAD), Lines(documents, 8, PAD, 2), Packs(documents, 8, PAD, True)][kind]
        if len(examples) < size:
            return
        sample = Sample(examples, size, seed)
        assert len(sample) == size
        rows = sample.rows(np.arange(size))
        assert rows.numbers.tolist() == sorted(set(rows.numbers.tolist()))
        np.testing.assert_array_equal(rows.tokens, examples.rows(rows.numbers).tokens)
        assert sample.num_tokens == rows.lengths.sum()
        if examples.lengths is not None:
            assert sample.lengths.tolist() == rows.lengths.tolist()
        assert (sample.documents_dropped, sample.documents_cut) == (examples.documents_dropped, examples.documents_cut)
        assert documents.num_tokens + sample.num_repeated == sample.num_tokens + sample.num_dropped
        backwards = sample.rows(np.arange(size)[::-1])
        assert backwards.numbers.tolist() == rows.numbers.tolist()[::-1]

    def test_the_seed_chooses(self):
        blocks = Blocks(Documents(Store([[*range(10, 1010)]])), 5, PAD)

        def chosen(size, seed):
            return set(Sample(blocks, size, seed).rows(np.arange(size)).numbers.tolist())

        assert chosen(50, 1) == chosen(50, 1)
        assert chosen(50, 1) != chosen(50, 2)
        assert chosen(50, 1) < chosen(80, 1)  # more of them are the same ones, and more
        assert chosen(200, 1) == set(range(200))

    def test_every_example_is_as_probable(self):
        blocks = Blocks(Documents(Store([[*range(10, 30)]])), 1, PAD)
        counts = np.bincount(np.concatenate([Sample(blocks, 5, seed).numbers for seed in range(400)]), minlength=20)
        assert ((counts - 100) ** 2 / 75).sum() < 45  # chi-square with 19 degrees of freedom

    def test_long_samples_are_counted_in_stretches(self):
        blocks = Blocks(Documents(Store([[*range(10, 3017)]])), 1, PAD)
        assert Sample(blocks, 2500, 0).num_tokens == 2500


texts = st.lists(st.text(max_size=4), max_size=15)


class TestSplitByContent:
    @few
    @given(old=texts, new=texts, fraction=st.floats(0, 0.99), data=st.data())
    def test_what_is_added_moves_nothing(self, old, new, fraction, data):
        def held_out(all_texts):
            store = Store([[10]] * len(all_texts), texts=all_texts)
            train, validation = split_by_content(store, fraction)
            numbers = train.numbers.tolist(), validation.numbers.tolist()
            assert sorted(chain(*numbers)) == [*range(len(all_texts))]
            sides = [{all_texts[number] for number in side} for side in numbers]
            assert not sides[0] & sides[1]  # equal texts stay together
            return sides

        mixed = data.draw(st.permutations(old + new))
        for before, after in zip(held_out(old), held_out(mixed), strict=True):
            assert before <= after

    @pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.3, 0.9])
    def test_the_share_is_near_the_fraction(self, fraction):
        num = 20_000
        hashes = np.array([content_hash(f"document {i}") for i in range(num)], np.uint64)
        spread = (fraction * (1 - fraction) * num) ** 0.5
        assert abs(is_held_out(hashes, fraction).sum() - fraction * num) <= 4.5 * spread

    def test_a_larger_share_holds_the_smaller(self):
        hashes = np.array([content_hash(f"document {i}") for i in range(1000)], np.uint64)
        assert not (is_held_out(hashes, 0.1) & ~is_held_out(hashes, 0.2)).any()

    def test_both_sides_together_hold_every_token(self):
        store = Store([[*range(10 + 7 * i, 17 + 7 * i)] for i in range(60)], [1], [5])
        sides = split_by_content(store, 0.4, ANSWER)
        assert {side.trainable_bit for side in sides} == {ANSWER}
        blocks = [Blocks(side, 16, PAD) for side in sides]
        found = [b.rows(np.arange(len(b))).tokens.ravel() for b in blocks]
        assert min(map(len, found)) > 0
        assert sorted(t for t in np.concatenate(found).tolist() if t != PAD) == sorted(store.tokens.tolist())
