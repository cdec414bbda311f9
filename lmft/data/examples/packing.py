"""Packing of documents by best fit decreasing."""

import numpy as np


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack items, the longest first, each into the fullest pack that still has room (Johnson 1973).

    Items of one length are placed together: the fullest pack with room for one remains the fullest with
    room until it is full. So the work grows with the number of distinct lengths, not with that of items.

    Args:
        lengths: [n] length of each item, from 1 to `capacity`.
        capacity: largest length of a pack.

    Returns: members [n] and offsets [packs + 1]; pack p has the items members[offsets[p] : offsets[p +
    1]], in ascending order. The same lengths give the same packs.
    """
    order = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(len(lengths), np.int64)
    # Packs by the length they have left.
    room: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]
    num_open = np.zeros(capacity + 1, np.int64)  # packs in each entry of `room`
    num_packs = 0
    values, firsts = np.unique(-lengths[order], return_index=True)
    for length, items in zip(-values, np.split(order, firsts)[1:], strict=True):
        for left in length + np.flatnonzero(num_open[length:]):
            per_pack = left // length  # items that such a pack takes
            packs = np.concatenate(room[left])
            num_used = min(len(packs), -(-len(items) // per_pack))
            room[left] = [packs[num_used:]]
            num_open[left] -= num_used
            items = _place(items, packs[:num_used], left, length, pack_of, room, num_open)
            if not len(items):
                break
        if len(items):
            num_new = -(-len(items) // (capacity // length))
            new_packs = np.arange(num_packs, num_packs + num_new)
            num_packs += num_new
            _place(items, new_packs, capacity, length, pack_of, room, num_open)
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
    """Fill packs that have a length of `left` left with items of one length; return the other items."""
    per_pack = left // length
    placed = items[: len(packs) * per_pack]
    pack_of[placed] = np.repeat(packs, per_pack)[: len(placed)]
    # Items of the last pack, which may have more room.
    in_last = len(placed) - (len(packs) - 1) * per_pack
    for filled, count in ((packs[:-1], per_pack), (packs[-1:], in_last)):
        if len(filled):
            room[left - count * length].append(filled)
            num_open[left - count * length] += len(filled)
    return items[len(packs) * per_pack :]
