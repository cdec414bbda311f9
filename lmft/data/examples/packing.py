"""Which rows share a pack: best fit decreasing."""

import numpy as np


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs of items, the longest first, each into the fullest pack that still has room (Johnson 1973).

    lengths: [n], each from 1 to `capacity`. Returns (members [n], offsets [packs + 1]): pack p holds the
    items members[offsets[p] : offsets[p + 1]], in their order. The same lengths give the same packs.

    Items of one length are placed together: the fullest pack with room for one stays the fullest with room
    until it is full, so the work grows with the number of distinct lengths, not with that of items.
    """
    order = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(len(lengths), np.int64)
    room: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]  # packs by what they have room for
    num_open = np.zeros(capacity + 1, np.int64)
    num_packs = 0
    values, firsts = np.unique(-lengths[order], return_index=True)
    for length, items in zip(-values, np.split(order, firsts)[1:], strict=True):
        for left in length + np.flatnonzero(num_open[length:]):
            each = left // length  # items that such a pack takes
            packs = np.concatenate(room[left])
            used = min(len(packs), -(-len(items) // each))
            chosen, room[left] = packs[:used], [packs[used:]]
            num_open[left] -= used
            items = _place(items, chosen, left, length, pack_of, room, num_open)
            if not len(items):
                break
        if len(items):
            used = -(-len(items) // (capacity // length))
            fresh = np.arange(num_packs, num_packs + used)
            num_packs += used
            _place(items, fresh, capacity, length, pack_of, room, num_open)
    members = np.argsort(pack_of, kind="stable")
    return members, np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=num_packs))])


def _place(
    items: np.ndarray,
    packs: np.ndarray,
    left: int,
    length: int,
    pack_of: np.ndarray,
    room: list[list[np.ndarray]],
    num_open: np.ndarray,
) -> np.ndarray:
    """Fills packs that have room for `left` with items of one length; returns the items that are over."""
    each = left // length
    placed, over = items[: len(packs) * each], items[len(packs) * each :]
    pack_of[placed] = np.repeat(packs, each)[: len(placed)]
    in_last = len(placed) - (len(packs) - 1) * each  # items in the last pack, which may stay emptier
    for some, count in ((packs[:-1], each), (packs[-1:], in_last)):
        if len(some):
            room[left - count * length].append(some)
            num_open[left - count * length] += len(some)
    return over
