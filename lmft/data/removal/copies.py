"""Exact copies: documents with the text and the tokens of an earlier one."""

import numpy as np
import xxhash

from lmft.data.store import TokenStore


def exact_copies(store: TokenStore) -> np.ndarray:
    """Return which documents are copies of an earlier one. [M] bool

    Texts are compared by a hash of 64 bits, and where that is equal by one of 128 bits of tokens and
    flags: a chat whose answers make an example each has several documents of one text. A document takes
    17 bytes of memory.
    """
    order = np.argsort(store.hashes, kind="stable")
    is_like_last = np.zeros(len(order), bool)
    is_like_last[1:] = store.hashes[order[1:]] == store.hashes[order[:-1]]
    is_copy = np.zeros(len(order), bool)
    seen: set[bytes] = set()
    for place in np.flatnonzero(is_like_last | np.append(is_like_last[1:], False)):
        if not is_like_last[place]:
            seen.clear()
        number = order[place]
        digest = _digest(store, int(store.offsets[number]), int(store.offsets[number + 1]))
        is_copy[number] = digest in seen
        seen.add(digest)
    return is_copy


def _digest(store: TokenStore, start: int, stop: int) -> bytes:
    digest = xxhash.xxh3_128(store.tokens[start:stop].tobytes())
    digest.update(store.flags[start:stop].tobytes())
    return digest.digest()
