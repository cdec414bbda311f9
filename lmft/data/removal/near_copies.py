"""Near copies: documents that share most of their stretches of five tokens with an earlier one.

MinHash (Broder 1997) finds documents that are likely to, by locality-sensitive hashing; then their
stretches are compared themselves. So nothing is removed that is not alike, and little that is alike is
missed. Five words and a similarity of 0.8 are the practice of Lee et al. 2022.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lmft.config.extras import install_command, is_installed
from lmft.data.removal.ngrams import stretch_hashes
from lmft.data.store import TokenStore
from lmft.errors import UserError
from lmft.objectives.base import SPECIAL

_TOKENS = 5  # of a stretch
_PERMUTATIONS = 128
_SEED = 1
_AT_A_TIME = 1 << 12  # stretches; each takes a kilobyte while it is hashed
_MOST_MISSED = 1e-4  # share of the pairs that are just alike enough, and not found


def check_installed() -> None:
    """Raise UserError if the library that finds near copies is missing."""
    if not is_installed("datasketch"):
        what = "finding near copies needs datasketch, which is not installed"
        fix = f"{install_command('datasketch')}, or data.deduplicate=exact"
        raise UserError(what, "data.deduplicate=near", fix)


def near_copies(
    store: TokenStore, is_looked_at: np.ndarray, similarity: float, advance: Callable[[int], object]
) -> np.ndarray:
    """Return which documents are near copies of an earlier one that is kept. [M] bool

    Args:
        store: the documents, whose order decides which of two stays.
        is_looked_at: [M] bool, documents that are compared.
        similarity: share of the stretches of two documents together that both have (Jaccard).
        advance: called with the number of documents that were compared.
    """
    import datasketch

    hasher: Any = datasketch.MinHash(_PERMUTATIONS, seed=_SEED, hashfunc=int)
    index: Any = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=bands(similarity))
    is_near = np.zeros(store.num_documents, bool)
    for number in np.flatnonzero(is_looked_at).tolist():
        advance(1)
        stretches = _stretches(store, number)
        if not len(stretches):
            continue  # shorter than a stretch
        sketch = hasher.copy()
        for start in range(0, len(stretches), _AT_A_TIME):
            sketch.update_batch(stretches[start : start + _AT_A_TIME] & np.uint64(0xFFFFFFFF))
        others = (_stretches(store, other) for other in index.query(sketch))
        if any(_similarity(stretches, other) >= similarity for other in others):
            is_near[number] = True
        else:
            index.insert(number, sketch, check_duplication=False)
    return is_near


def bands(similarity: float) -> tuple[int, int]:
    """Return how many bands a sketch is split into, and the values of each.

    Two documents are compared if all values of a band are equal. Long bands leave little to compare;
    they are as long as they can be without missing pairs of this similarity.
    """
    rows = _PERMUTATIONS // 2
    while rows > 1 and (1 - similarity**rows) ** (_PERMUTATIONS // rows) > _MOST_MISSED:
        rows -= 1
    return _PERMUTATIONS // rows, rows


def _stretches(store: TokenStore, number: int) -> np.ndarray:
    """Return the hashes of a document's stretches, ascending, each once. [n] uint64"""
    start, stop = store.offsets[number : number + 2].tolist()
    tokens = store.tokens[start:stop]
    return np.unique(stretch_hashes(tokens[(store.flags[start:stop] & SPECIAL) == 0], _TOKENS))


def _similarity(first: np.ndarray, second: np.ndarray) -> float:
    num_shared = len(np.intersect1d(first, second, assume_unique=True))
    return num_shared / (len(first) + len(second) - num_shared)
