"""Hashes of stretches of tokens or words, and a set of them that is looked through fast."""

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_TABLE_BITS = 22
NUM_WORDS = 13  # in a row, of what two texts share


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def stretch_hashes(values: np.ndarray, length: int = NUM_WORDS) -> np.ndarray:
    """Return a hash of each stretch of so many values. [N] → [N − length + 1] uint64"""
    if len(values) < length:
        return np.zeros(0, np.uint64)
    one = (values.astype(np.uint64) + np.uint64(1)) * _FACTOR
    one ^= one >> np.uint64(29)
    # Stretches of 2, 4, 8, … are two of half the length; those that the length adds up to are joined.
    whole: np.ndarray | None = None
    num_joined = 0
    power = one
    size = 1
    parts = []
    while size <= length:
        if length & size:
            parts.append((power, size))
        power = _joined(power, power, size)
        size *= 2
    for part, size in reversed(parts):
        whole = part if whole is None else _joined(whole, part, num_joined)
        num_joined += size
    assert whole is not None
    return whole


def _joined(first: np.ndarray, second: np.ndarray, apart: int) -> np.ndarray:
    """Return hashes of stretches that consist of one of `first` and one of `second` after it."""
    second = second[apart:]
    length = min(len(first), len(second))
    mixed = first[:length] * np.uint64(0xBF58476D1CE4E5B9 + 2 * apart)
    mixed ^= mixed >> np.uint64(31)
    return mixed * _FACTOR + second[:length]


class Hashes:
    """A set of hashes."""

    def __init__(self, hashes: np.ndarray):
        """Keep hashes.

        hashes: [n] ascending, each once.
        """
        self.hashes = hashes
        # [2 ** _TABLE_BITS] whether a hash begins with these bits.
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[hashes >> np.uint64(64 - _TABLE_BITS)] = True

    def found_in(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of those that are in the set, and which of the set they are."""
        near = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        if not len(self.hashes):
            return near, near
        which = np.searchsorted(self.hashes, hashes[near])
        which = np.minimum(which, len(self.hashes) - 1)
        is_equal = self.hashes[which] == hashes[near]
        return near[is_equal], which[is_equal]
