"""Lines and packs against slow re-implementations that copy lists: same rows, every token accounted for or scored."""

from collections import Counter
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples import column
from lmft.data.examples import documents as documents_module
from lmft.data.examples.documents import Documents
from lmft.data.examples.windows import Lines, Packs
from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import ANSWER, IGNORED, Rows
from lmft.objectives.causal import NextToken
from tests.helpers.rows import VOCABULARY
from tests.helpers.stores import PAD, Store, assert_all_examples, numbers_of, parts


def windows_of(body: list[int], size: int, stride: int) -> list[list[int]]:
    """A document's windows, slowly: as few as hold every token."""
    if not body:
        return []
    found = [body[:size]]
    for start in range(stride, len(body), stride):
        if found[-1][-1] == body[-1]:
            break
        found.append(body[start : start + size])
    return found


class Cut(NamedTuple):
    """Documents cut into windows, slowly."""

    rows: list[list[int]]  # those kept, with their separators
    kept: list[list[list[int]]]  # of each document
    dropped: list[tuple[int, str]]  # documents without a row, by their place, and why


def cut(store: Store, bodies: list[list[int]], size: int, stride: int, only_first: bool, answers) -> Cut:
    """answers: the tokens that may be targets; None: all may."""
    kept, dropped = [], []
    for place, body in enumerate(bodies):
        windows = windows_of(body[:size] if only_first else body, size, stride)
        rows = [[*store.prefix, *window, *store.suffix] for window in windows]
        rows = [row for row in rows if len(row) > 1 and (answers is None or answers & {*row[1:]})]
        kept.append(rows)
        if not rows:
            dropped.append((place, "too short" if answers is None or not body else "without a target"))
    return Cut([*chain(*kept)], kept, dropped)


def assert_accounts(found, store: Store, bodies: list[list[int]], expected: Cut, size: int, only_first: bool) -> None:
    """`found` are lines or packs."""
    separators = len(store.prefix) + len(store.suffix)
    held = {token for row in expected.rows for token in row if token >= 10}
    assert found.num_tokens == sum(map(len, expected.rows))
    assert found.num_dropped == sum(map(len, bodies)) - len(held) + separators * len(expected.dropped)
    num_tokens = sum(map(len, bodies)) + separators * len(bodies)
    assert num_tokens + found.num_repeated == found.num_tokens + found.num_dropped

    assert found.documents_dropped == Counter(reason for _, reason in expected.dropped)
    assert found.windows.first_dropped == (expected.dropped[0][0] if expected.dropped else None)
    too_long = [place for place, body in enumerate(bodies) if len(body) > size]
    assert found.windows.too_long.tolist() == too_long
    assert found.documents_cut == (len(too_long) if only_first else 0)


def scored(rows: Rows) -> Counter[int]:
    """How often next-token prediction scores each token."""
    targets = NextToken()(rows, VOCABULARY, TokenNoise(0, 0, rows.numbers))["targets"]
    return Counter(targets[targets != IGNORED].tolist())


@contextmanager
def listed_as_a_long_text():
    """A few tokens at a time, into files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "_TOKENS", 7)
        patch.setattr(column, "_IN_MEMORY", 20)
        yield


few = settings(max_examples=150, deadline=None)
bits = st.sampled_from([0, int(ANSWER)])


class TestLines:
    @few
    @given(
        part=parts(), size=st.integers(1, 8), only_first=st.booleans(), bit=bits, is_long=st.booleans(), data=st.data()
    )
    def test_windows_between_separators(self, part, size, only_first, bit, is_long, data):
        store, numbers = part
        stride = data.draw(st.none() if only_first else st.none() | st.integers(1, size))
        block_size = size + len(store.prefix) + len(store.suffix)
        bodies, answers = [store.bodies[number] for number in numbers_of(*part)], store.answers if bit else None
        expected = cut(store, bodies, size, stride or size, only_first, answers)
        with listed_as_a_long_text() if is_long else nullcontext():
            lines = Lines(Documents(store, numbers, bit), block_size, PAD, stride, only_first)
        assert_all_examples(lines, expected.rows, data, answers)
        assert_accounts(lines, store, bodies, expected, size, only_first)
        assert lines.lengths.tolist() == [len(row) for row in expected.rows]
        assert max(lines.lengths, default=0) <= block_size

    @few
    @given(part=parts(min_documents=1), size=st.integers(2, 8), bit=bits, data=st.data())
    def test_overlapping_windows_score_every_token_but_the_first_once(self, part, size, bit, data):
        store, numbers = part
        stride = data.draw(st.integers(1, size - 1))
        block_size = size + len(store.prefix) + len(store.suffix)
        lines = Lines(Documents(store, numbers, bit), block_size, PAD, stride)
        order = data.draw(st.permutations(range(len(lines))))
        found = sum((scored(lines.rows(np.array(order[i : i + 5]))) for i in range(0, len(order), 5)), Counter())
        bodies = [store.bodies[number] for number in numbers_of(*part)]
        wanted = chain(*(body if store.prefix else body[1:] for body in bodies))
        assert {token: count for token, count in found.items() if token >= 10} == {
            token: 1 for token in wanted if not bit or token in store.answers
        }

    def test_context_that_overlaps_is_not_scored_again(self):
        lines = Lines(Documents(Store([[*range(10, 20)], [20, 21]], [1], [5])), 7, PAD, stride=3)
        rows = lines.rows(np.array([2, 0, 3, 1]))
        assert rows.tokens[3].tolist() == [1, 13, 14, 15, 16, 17, 5]
        assert rows.num_seen.tolist() == [3, 0, 0, 3]  # the separator, 13 and 14 were seen
        assert scored(rows) == Counter([*range(10, 22)] + 4 * [5])
        assert Lines(lines.windows.documents, 7, PAD).rows(np.array([0, 1])).num_seen is None

    def test_padded_to_the_longest_of_the_batch(self):
        store = Store([[*range(10, 12)], [*range(12, 18)], [*range(18, 21)]], [1], [5])
        lines = Lines(Documents(store), 100, PAD)
        assert lines.rows(np.array([0, 2])).tokens.tolist() == [[1, 10, 11, 5, PAD], [1, 18, 19, 20, 5]]
        assert lines.rows(np.array([0, 1])).tokens.shape == (2, 8)

    def test_each_row_is_a_document_that_padding_is_not_of(self):
        rows = Lines(Documents(Store([[10, 11], [12, 13, 14]])), 9, PAD).rows(np.array([0, 1]))
        assert rows.documents.tolist() == [[0, 0, -1], [1, 1, 1]]
        assert not rows.isolated  # nothing else is in the row

    def test_no_document_makes_no_example(self):
        for store, dropped in ((Store([]), {}), (Store([[], []], [1], [5]), {"too short": 2})):
            lines = Lines(Documents(store, None, int(ANSWER)), 8, PAD)
            assert len(lines) == lines.num_tokens == 0
            assert lines.num_dropped == len(store.tokens)
            assert lines.documents_dropped == dropped

    def test_rows_are_copies(self):
        store = Store([[*range(10, 30)]])
        rows = Lines(Documents(store), 8, PAD).rows(np.array([0]))
        rows.tokens[:], rows.flags[:] = 0, 0
        assert store.tokens.tolist() == [*range(10, 30)]
        assert store.flags.any()


class TestPacks:
    @few
    @given(part=parts(), size=st.integers(1, 16), only_first=st.booleans(), bit=bits, data=st.data())
    def test_each_window_is_whole_in_one_pack(self, part, size, only_first, bit, data):
        store, numbers = part
        block_size = size + len(store.prefix) + len(store.suffix)
        bodies, answers = [store.bodies[number] for number in numbers_of(*part)], store.answers if bit else None
        expected = cut(store, bodies, size, size, only_first, answers)
        packs = Packs(Documents(store, numbers, bit), block_size, PAD, only_first)
        members = np.split(packs.members, packs.offsets[1:-1])
        joined = [[*chain(*(expected.rows[member] for member in some))] for some in members] if expected.rows else []
        assert_all_examples(packs, joined, data, answers)
        assert_accounts(packs, store, bodies, expected, size, only_first)
        assert sorted(packs.members.tolist()) == [*range(len(expected.rows))]
        assert max(map(len, joined), default=0) <= block_size
        assert packs.lengths is None  # they hardly differ

    @few
    @given(part=parts(min_documents=1), size=st.integers(2, 16), bit=bits, data=st.data())
    def test_members_are_told_apart(self, part, size, bit, data):
        store, numbers = part
        block_size = size + len(store.prefix) + len(store.suffix)
        documents = Documents(store, numbers, bit)
        packs, lines = Packs(documents, block_size, PAD), Lines(documents, block_size, PAD)
        if not len(packs):
            return
        rows = packs.rows(np.array(data.draw(st.permutations(range(len(packs))))))
        assert rows.isolated
        members = []
        for tokens, of, length in zip(rows.tokens, rows.documents, rows.lengths, strict=True):
            assert (of[length:] == -1).all()
            begins = np.flatnonzero(np.diff(of[:length], prepend=-1))
            assert len({*of[begins]}) == len(begins)
            members += [part.tolist() for part in np.split(tokens[:length], begins[1:])]
        every = lines.rows(np.arange(len(lines)))
        one_a_row = [row[:length].tolist() for row, length in zip(every.tokens, every.lengths, strict=True)]
        assert sorted(members) == sorted(one_a_row)
        assert scored(rows) == scored(every)  # the first token of each member has nothing before it

    def test_documents_share_a_row(self):
        packs = Packs(Documents(Store([[10, 11], [12], [13, 14, 15], [16]], [1])), 6, PAD)
        rows = packs.rows(np.array([1, 0]))
        assert rows.tokens.tolist() == [[1, 10, 11, 1, 16, PAD], [1, 12, 1, 13, 14, 15]]
        assert rows.documents.tolist() == [[0, 0, 0, 1, 1, -1], [2, 2, 3, 3, 3, 3]]

    def test_no_document_makes_no_example(self):
        assert len(Packs(Documents(Store([])), 8, PAD)) == 0
        assert len(Packs(Documents(Store([[], []], [1])), 8, PAD)) == 0
