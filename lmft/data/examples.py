"""Examples: index arithmetic over a token store. Nothing is copied before a batch asks for it."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from lmft.data.noise import key
from lmft.data.schedule import Permutation
from lmft.data.store import TokenStore
from lmft.objectives.base import SPECIAL, Rows, threshold


class Examples(Protocol):
    """What a batch is cut from."""

    # tokens of the documents + num_repeated = num_tokens + num_dropped
    num_tokens: int  # in all examples, padding not counted
    num_repeated: int  # of these, seen more than once: overlapping windows, separators around each window
    num_dropped: int  # in no example
    documents_dropped: dict[str, int]  # why whole documents are in no example, and how many
    documents_cut: int  # of which the end is in no example

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray | None:
        """[examples] tokens of each; None where they hardly differ."""
        ...

    def rows(self, examples: np.ndarray) -> Rows:
        """These examples [B] as one rectangle, padded to the longest."""
        ...


class Documents:
    """Some of a store's documents, in order: the whole store, or one side of a split by content.

    numbers: [n] of the documents in the store; trainable_bit: the flag of the tokens that may be targets, 0: all may.
    """

    def __init__(self, store: TokenStore, numbers: np.ndarray | None = None, trainable_bit: int = 0):
        self.store, self.trainable_bit = store, np.uint8(trainable_bit)
        self.numbers = np.arange(len(store.offsets) - 1) if numbers is None else numbers
        self.starts = store.offsets[self.numbers]  # [n] where each begins in the store
        self.lengths = store.offsets[self.numbers + 1] - self.starts  # [n]
        self.num_tokens = int(self.lengths.sum())
        self.num_bytes = int(store.bytes[self.numbers].sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.numbers)

    def trainable(self, flags: np.ndarray) -> np.ndarray | None:
        """Which tokens may be targets, by their flags, as Rows say it: None where all may."""
        return (flags & self.trainable_bit) != 0 if self.trainable_bit else None


def split_by_content(store: TokenStore, held_out: float, trainable_bit: int = 0) -> tuple[Documents, Documents]:
    """(training, validation) documents: a share `held_out` is held out, by the hash of its text alone.

    So equal texts stay together, and texts added later move none from one side to the other.
    """
    apart = is_held_out(store.hashes, held_out)
    train, validation = (Documents(store, np.flatnonzero(side), trainable_bit) for side in (~apart, apart))
    return train, validation


def is_held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Which documents, by their content hashes [n], are held out. [n] bool"""
    return hashes < threshold(share)


def share_that_splits(hashes: np.ndarray) -> float | None:
    """The smallest share, in hundredths, that holds some documents out and leaves others; None where none does."""
    return next((i / 100 for i in range(1, 100) if 0 < is_held_out(hashes, i / 100).sum() < len(hashes)), None)


class Blocks:
    """Windows of `block_size` tokens over the stream of documents, with their separators. The last may be shorter.

    numbered: tell each token's document; isolated: and that attention is to be kept inside it.
    """

    lengths = None
    num_repeated = num_dropped = documents_cut = 0

    def __init__(
        self, documents: Documents, block_size: int, pad_id: int, isolated: bool = False, numbered: bool = False
    ):
        self.documents, self.block_size, self.pad_id = documents, block_size, pad_id
        self.isolated, self.numbered = isolated, isolated or numbered
        self.documents_dropped: dict[str, int] = {}
        self.num_tokens = documents.num_tokens
        joins = np.flatnonzero(documents.starts[1:] != documents.starts[:-1] + documents.lengths[:-1]) + 1
        firsts = np.concatenate(([0], joins)) if len(documents) else np.zeros(0, np.int64)
        stream_starts = np.cumsum(documents.lengths) - documents.lengths  # [n] where each document begins in the stream
        self.run_starts = stream_starts[firsts]  # [runs] of neighbouring documents: where each begins in the stream
        self.run_ends = np.append(self.run_starts[1:], self.num_tokens)  # [runs] and ends
        self.run_places = documents.starts[firsts]  # [runs] and where it begins in the store

    def __len__(self) -> int:
        return -(-self.num_tokens // self.block_size)

    def rows(self, examples: np.ndarray) -> Rows:
        """These blocks [B]: tokens [B, T], padded only where the stream's end is among them."""
        starts = examples * self.block_size
        stops = np.minimum(starts + self.block_size, self.num_tokens)
        lengths = stops - starts
        columns = np.arange(lengths.max())
        first_runs = np.searchsorted(self.run_starts, starts, side="right") - 1
        begins = starts - self.run_starts[first_runs] + self.run_places[first_runs]
        places = begins[:, None] + columns  # [B, T] place in the store
        crossing = np.flatnonzero((stops > self.run_ends[first_runs]) | (lengths < len(columns)))
        if len(crossing):
            stream = np.minimum(starts[crossing, None] + columns, stops[crossing, None] - 1)  # place in the stream
            runs = np.searchsorted(self.run_starts, stream, side="right") - 1
            places[crossing] = stream - self.run_starts[runs] + self.run_places[runs]
        rows = gather(self.documents, places, lengths, self.pad_id, examples)
        if not self.numbered:
            return rows
        documents = np.searchsorted(self.documents.store.offsets, places, side="right") - 1
        documents[np.arange(documents.shape[1]) >= lengths[:, None]] = -1
        return replace(rows, documents=documents, isolated=self.isolated)


def gather(documents: Documents, places: np.ndarray, lengths: np.ndarray, pad_id: int, examples: np.ndarray) -> Rows:
    """The store's tokens at these places [B, T]; beyond each row's length, padding."""
    store = documents.store
    tokens, flags = store.tokens.take(places).astype(np.int64), store.flags.take(places)  # faster than by []
    if lengths.min() < places.shape[1]:
        beyond = np.arange(places.shape[1]) >= lengths[:, None]
        tokens[beyond], flags[beyond] = pad_id, SPECIAL
    return Rows(tokens, flags, lengths, numbers=examples, trainable=documents.trainable(flags))


class Sample:
    """Some of the examples, chosen by seed; each keeps its number, so that its noise stays the same."""

    def __init__(self, examples: Examples, size: int, seed: int):
        self.examples = examples
        self.numbers = np.sort(Permutation(len(examples), key(seed, "sample"))(np.arange(size)))
        self.num_tokens = sum(  # in stretches, so that memory stays flat
            int(examples.rows(self.numbers[i : i + 1024]).lengths.sum()) for i in range(0, size, 1024)
        )
        self.lengths = None if examples.lengths is None else examples.lengths[self.numbers]
        self.num_repeated = examples.num_repeated
        self.documents_dropped, self.documents_cut = examples.documents_dropped, examples.documents_cut
        self.num_dropped = examples.num_dropped + examples.num_tokens - self.num_tokens

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, examples: np.ndarray) -> Rows:
        """These of the chosen examples [B]."""
        return self.examples.rows(self.numbers[examples])
