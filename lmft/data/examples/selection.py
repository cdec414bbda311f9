"""Which of a store's documents are chosen, and what they add up to, in constant memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.data.removal.removed import REASONS, Removed
from lmft.data.store import TokenStore
from lmft.objectives.base import threshold

_GROUP = 1 << 12  # documents of a store that are counted together
_STRETCH = 16 * _GROUP  # documents that are in memory at a time
_SUMMED = ("bytes", "unknown_tokens", "unknown_bytes")


def is_held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Return which documents are held out, by the hashes of their content. [n] uint64 → [n] bool"""
    return hashes < threshold(share)


@dataclass(frozen=True)
class Selection:
    """All documents, or one side of a split by content."""

    held_out: float = 0.0
    """Share of the documents held out for validation."""
    is_validation: bool | None = None
    """Which side is chosen; None: both."""
    removed: Removed | None = None
    """Documents that are left out of it."""

    @property
    def key(self) -> list[Any]:
        """Return what tells this selection from others of the same store, as JSON can write it."""
        removed = None if self.removed is None else self.removed.folder.name
        return [self.held_out, self.is_validation, removed]

    def of(self, store: TokenStore, first: int, stop: int) -> np.ndarray:
        """Return which documents from `first` to before `stop` are chosen. [stop − first] bool"""
        chosen = self._side(store, first, stop)
        if self.removed is not None:
            chosen &= self.removed.reasons(first, stop) == 0
        return chosen

    def _side(self, store: TokenStore, first: int, stop: int) -> np.ndarray:
        if self.is_validation is None:
            return np.ones(stop - first, bool)
        hashes = store.read("hashes", first, stop)
        return is_held_out(hashes, self.held_out) == self.is_validation

    def num_removed(self, store: TokenStore) -> dict[str, int]:
        """Return how many documents of this side are left out, by reason."""
        counts = np.zeros(len(REASONS) + 1, np.int64)
        if self.removed is not None:
            for first, _ in self.stretches(store):
                stop = min(first + _STRETCH, store.num_documents)
                reasons = self.removed.reasons(first, stop)[self._side(store, first, stop)]
                counts += np.bincount(reasons, minlength=len(counts))
        return {name: int(count) for name, count in zip(REASONS, counts[1:], strict=True) if count}

    def stretches(self, store: TokenStore) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first document of each stretch of the store, and which of it are chosen."""
        for first in range(0, store.num_documents, _STRETCH):
            yield first, self.of(store, first, min(first + _STRETCH, store.num_documents))


@dataclass(frozen=True, kw_only=True)
class Listed(Selection):
    """Documents that are listed by their numbers."""

    numbers: np.ndarray
    """[n] ascending"""

    def of(self, store: TokenStore, first: int, stop: int) -> np.ndarray:
        """Return which documents from `first` to before `stop` are chosen. [stop − first] bool"""
        chosen = np.zeros(stop - first, bool)
        bounds = np.searchsorted(self.numbers, [first, stop])
        chosen[self.numbers[slice(*bounds)] - first] = True
        return chosen


@dataclass(frozen=True)
class Totals:
    """Sums over documents, and where their runs are.

    A run is a sequence of documents that are consecutive in the store too.
    """

    num_documents: int
    num_tokens: int
    sums: dict[str, int]
    """bytes, unknown_tokens and unknown_bytes."""
    counts: np.ndarray
    """[groups + 1] documents before each group of the store."""
    run_starts: np.ndarray
    """[runs] where each begins in the stream of the documents."""
    run_places: np.ndarray
    """[runs] where it begins in the store."""


def totals_of(store: TokenStore, selection: Selection) -> Totals:
    """Add up the documents of a selection, stretch by stretch."""
    sums: dict[str, int] = dict.fromkeys(_SUMMED, 0)
    num_tokens = 0
    counts = [np.zeros(1, np.int64)]
    starts = [np.zeros(0, np.int64)]
    places = [np.zeros(0, np.int64)]
    is_in_run = False  # the last document before the stretch is chosen
    for first, chosen in selection.stretches(store):
        stop = first + len(chosen)
        for name in _SUMMED:
            sums[name] += int(store.read(name, first, stop)[chosen].sum(dtype=np.int64))
        offsets = store.read("offsets", first, stop + 1)
        lengths = np.diff(offsets) * chosen
        counts.append(np.add.reduceat(chosen, np.arange(0, len(chosen), _GROUP), dtype=np.int64))
        begins = np.flatnonzero(chosen & ~np.append(is_in_run, chosen[:-1]))
        starts.append(num_tokens + (np.cumsum(lengths) - lengths)[begins])
        places.append(offsets[begins])
        num_tokens += int(lengths.sum())
        is_in_run = bool(chosen[-1])
    cumulated = np.cumsum(np.concatenate(counts))
    return Totals(
        num_documents=int(cumulated[-1]),
        num_tokens=num_tokens,
        sums=sums,
        counts=cumulated,
        run_starts=np.concatenate(starts),
        run_places=np.concatenate(places),
    )


def numbers_at(
    store: TokenStore, selection: Selection, counts: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """Return the numbers of some documents of a selection.

    Args:
        store: the store.
        selection: which of its documents are chosen.
        counts: the selection's `Totals.counts`.
        indices: [n] which of the chosen documents.
    """
    groups = np.searchsorted(counts, indices, side="right") - 1  # [n]
    numbers = np.empty(len(indices), np.int64)
    for group in np.unique(groups):
        first = int(group) * _GROUP
        chosen = selection.of(store, first, min(first + _GROUP, store.num_documents))
        is_here = groups == group
        numbers[is_here] = first + np.flatnonzero(chosen)[indices[is_here] - counts[group]]
    return numbers
