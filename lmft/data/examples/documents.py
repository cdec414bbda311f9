"""Documents of a token store: all of them, or one side of a split by content."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lmft.data.examples.selection import Listed, Selection, is_held_out, numbers_at, totals_of
from lmft.data.removal.removed import Removed
from lmft.data.store import TokenStore
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL, Rows

TRAIN_ON = {"all": 0, "assistant": int(ANSWER), "completion": int(ANSWER), "last_turn": int(LAST_ANSWER)}
"""Flag of the tokens that the loss counts, by `data.train_on`; 0: every token."""

_TOKENS = 1 << 20  # of the store, from the first document of a stretch to its last


class Stretch(NamedTuple):
    """Some consecutive documents of a text."""

    numbers: np.ndarray  # [n] in the store
    starts: np.ndarray  # [n] where each begins there
    ends: np.ndarray  # [n] where it ends


class Documents:
    """Some of a store's documents, in order: the whole store, or one side of a split by content.

    What is kept of each document is found when it is first asked for; until then a store of any number
    of documents takes 16 bytes for each run of consecutive ones.
    """

    def __init__(
        self,
        store: TokenStore,
        numbers: np.ndarray | None = None,
        trainable_bit: int = 0,
        selection: Selection | None = None,
    ):
        """Select documents.

        Args:
            store: tokens of all documents.
            numbers: [n] numbers of the documents in the store, ascending; None: all of `selection`.
            trainable_bit: flag of the tokens that may be targets; 0: all may.
            selection: which documents; None: all.
        """
        self.store = store
        self.trainable_bit = np.uint8(trainable_bit)
        if numbers is not None:
            selection = Listed(numbers=numbers)
        self.selection = selection or Selection()
        totals = totals_of(store, self.selection)
        self.num_documents = totals.num_documents
        self.num_tokens = totals.num_tokens
        self.num_bytes = totals.sums["bytes"]
        self.unknown_tokens = totals.sums["unknown_tokens"]
        self.unknown_bytes = totals.sums["unknown_bytes"]
        # A run is a sequence of documents that are consecutive in the store too.
        self.run_starts = totals.run_starts  # [runs] where each begins in the stream of the documents
        self.run_places = totals.run_places  # [runs] where each begins in the store
        self._counts = totals.counts  # [groups + 1] documents before each group of the store's

    def __len__(self) -> int:
        return self.num_documents

    @property
    def key(self) -> list[Any]:
        """Return what tells these documents from others, as JSON can write it."""
        return [self.store.folder.name, *self.selection.key]

    @cached_property
    def num_removed(self) -> dict[str, int]:
        """Count the documents of the same side that are left out, by reason."""
        return self.selection.num_removed(self.store)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Numbers of all documents in the store. [n]"""
        stretches = self.selection.stretches(self.store)
        found = [first + np.flatnonzero(chosen) for first, chosen in stretches]
        return np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def starts(self) -> np.ndarray:
        """Return where each document begins in the store. [n]"""
        return self.store.offsets[self.numbers]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document. [n]"""
        return self.store.offsets[self.numbers + 1] - self.starts

    @cached_property
    def stream_starts(self) -> np.ndarray:
        """Return where each document begins in the stream of these documents. [n]"""
        return np.cumsum(self.lengths) - self.lengths

    def stretches(self) -> Iterator[Stretch]:
        """Yield the documents in order, as many at a time as memory holds easily with their tokens."""
        for first, chosen in self.selection.stretches(self.store):
            offsets = self.store.read("offsets", first, first + len(chosen) + 1)
            places = np.flatnonzero(chosen)
            starts = offsets[places]
            ends = offsets[places + 1]
            begin = 0
            while begin < len(places):
                stop = int(np.searchsorted(ends, starts[begin] + _TOKENS, side="right"))
                some = slice(begin, max(begin + 1, stop))
                yield Stretch(first + places[some], starts[some], ends[some])
                begin = some.stop

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """Return which documents of the store, given in ascending order, are among these. [n] bool"""
        held = np.zeros(len(numbers), bool)
        if len(numbers):
            first = int(numbers[0])
            held = self.selection.of(self.store, first, int(numbers[-1]) + 1)[numbers - first]
        return held

    def numbers_at(self, indices: np.ndarray) -> np.ndarray:
        """Return the numbers of some of these documents, without a list of all of them. [n] → [n]"""
        return numbers_at(self.store, self.selection, self._counts, indices)

    def spans_at(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where some of these documents begin in the store, and where they end. [n], [n]"""
        numbers = self.numbers_at(indices)
        return self.store.offsets[numbers], self.store.offsets[numbers + 1]

    def trainable(self, flags: np.ndarray) -> np.ndarray | None:
        """Return which tokens may be targets, by their flags: bool of the same shape; None: all may."""
        if not self.trainable_bit:
            return None
        return (flags & self.trainable_bit) != 0


def split_by_content(
    store: TokenStore, held_out: float, trainable_bit: int = 0, removed: Removed | None = None
) -> tuple[Documents, Documents]:
    """Split into training and validation documents: hold out a share by the hashes of the texts alone.

    So equal texts are on the same side, and texts added later move no other text.
    """
    train = Selection(held_out, is_validation=False, removed=removed)
    validation = Selection(held_out, is_validation=True, removed=removed)
    return (
        Documents(store, None, trainable_bit, train),
        Documents(store, None, trainable_bit, validation),
    )


def share_that_splits(hashes: np.ndarray) -> float | None:
    """Return the smallest share, in hundredths, that leaves documents on both sides; None if none
    does.
    """
    for hundredths in range(1, 100):
        share = hundredths / 100
        if 0 < is_held_out(hashes, share).sum() < len(hashes):
            return share
    return None


def gather(
    documents: Documents, places: np.ndarray, lengths: np.ndarray, pad_id: int, examples: np.ndarray
) -> Rows:
    """Gather tokens of the store into rows.

    Args:
        documents: the documents, whose store is read.
        places: [B, T] places in the store.
        lengths: [B] tokens of each row; padding follows them.
        pad_id: the padding token.
        examples: [B] numbers of the examples.
    """
    tokens = documents.store.tokens.take(places).astype(np.int64)  # faster than by []
    flags = documents.store.flags.take(places)
    if lengths.min() < places.shape[1]:
        is_padding = np.arange(places.shape[1]) >= lengths[:, None]
        tokens[is_padding] = pad_id
        flags[is_padding] = SPECIAL
    return Rows(tokens, flags, lengths, numbers=examples, trainable=documents.trainable(flags))
