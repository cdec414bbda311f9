"""Packs are as full as by the book, and the same each time."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples.packing import best_fit_decreasing


def rooms_by_the_book(lengths: list[int], capacity: int) -> list[int]:
    """What is left of each pack, one item at a time."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_fill_is_that_of_best_fit_decreasing(seed):
    draw = np.random.default_rng(seed)
    capacity = int(draw.integers(1, 13))
    kinds = draw.integers(1, capacity + 1, draw.integers(1, 6))  # few, so that many packs have the same room
    lengths = draw.choice(kinds, draw.integers(0, 60)).tolist()
    given_lengths = np.array(lengths, np.int64)
    members, offsets = best_fit_decreasing(given_lengths, capacity)
    assert given_lengths.tolist() == lengths
    assert sorted(members.tolist()) == [*range(len(lengths))]
    packs = [members[start:stop] for start, stop in pairwise(offsets)]
    assert sum(map(len, packs)) == len(lengths)
    assert all(len(pack) and (np.diff(pack) > 0).all() for pack in packs)  # in their order
    assert sorted(capacity - given_lengths[pack].sum() for pack in packs) == rooms_by_the_book(lengths, capacity)
    again = best_fit_decreasing(given_lengths.copy(), capacity)
    assert (again[0].tolist(), again[1].tolist()) == (members.tolist(), offsets.tolist())


def test_many_items_are_packed_as_best_fit_decreasing_packs_them():
    lengths = np.random.default_rng(0).geometric(0.02, 5000).clip(1, 512)
    members, offsets = best_fit_decreasing(lengths, 512)
    filled = np.add.reduceat(lengths[members], offsets[:-1])
    assert sorted(512 - filled) == rooms_by_the_book(lengths.tolist(), 512)
    assert len(filled) == -(-lengths.sum() // 512)  # here not one pack more than there must be


def test_no_item_one_item_and_full_packs_are_packed():
    for lengths, capacity, packs in (
        ([], 5, []), ([3], 5, [[0]]), ([5], 5, [[0]]), ([1, 1, 1], 1, [[0], [1], [2]]), ([2, 1, 3], 3, [[2], [0, 1]]),
    ):  # fmt: skip
        members, offsets = best_fit_decreasing(np.array(lengths, np.int64), capacity)
        assert [members[a:b].tolist() for a, b in pairwise(offsets)] == packs
