"""Examples against slow re-implementations that copy lists: same tokens, and every token accounted for."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples.base import Sample
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents, is_held_out, split_by_content
from lmft.data.examples.windows import Lines, Packs
from lmft.data.store import content_hash
from lmft.objectives.base import ANSWER, SPECIAL
from tests.helpers.stores import PAD, Store, assert_all_examples, numbers_of, parts, texts

few = settings(max_examples=60, deadline=None)


class TestDocuments:
    @few
    @given(part=parts())
    def test_documents_are_those_chosen(self, part):
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
    def test_blocks_are_windows_over_the_joined_documents(self, part, block_size, bit, data):
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
