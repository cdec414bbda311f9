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

    def __len__(self) -> int: ...

    def rows(self, examples: np.ndarray) -> Rows:
        """These examples [B] as one rectangle, padded to the longest."""
        ...


class Documents:
    """Some of a store's documents, in order: the whole store, or one side of a split by content.

    numbers: [n] of the documents in the store.
    """

    def __init__(self, store: TokenStore, numbers: np.ndarray | None = None):
        self.store = store
        self.numbers = np.arange(len(store.offsets) - 1) if numbers is None else numbers
        self.starts = store.offsets[self.numbers]  # [n] where each begins in the store
        self.lengths = store.offsets[self.numbers + 1] - self.starts  # [n]
        self.num_tokens = int(self.lengths.sum())
        self.num_bytes = int(store.bytes[self.numbers].sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.numbers)


def split_by_content(store: TokenStore, held_out: float) -> tuple[Documents, Documents]:
    """(training, validation) documents: a share `held_out` is held out, by the hash of its text alone.

    So equal texts stay together, and texts added later move none from one side to the other.
    """
    apart = is_held_out(store.hashes, held_out)
    return Documents(store, np.flatnonzero(~apart)), Documents(store, np.flatnonzero(apart))


def is_held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Which documents, by their content hashes [n], are held out. [n] bool"""
    return hashes < threshold(share)


class Blocks:
    """Windows of `block_size` tokens over the stream of documents, with their separators. The last may be shorter.

    isolated: tell each token's document, so that attention can be kept inside it.
    """

    num_repeated = num_dropped = 0

    def __init__(self, documents: Documents, block_size: int, pad_id: int, isolated: bool = False):
        self.store, self.block_size, self.pad_id, self.isolated = documents.store, block_size, pad_id, isolated
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
        stream = np.minimum(
            starts[:, None] + np.arange(lengths.max()), stops[:, None] - 1
        )  # [B, T] place in the stream
        first_runs = np.searchsorted(self.run_starts, starts, side="right") - 1
        runs = np.broadcast_to(first_runs[:, None], stream.shape)
        crossing = stops > self.run_ends[first_runs]
        if crossing.any():
            runs = runs.copy()
            runs[crossing] = np.searchsorted(self.run_starts, stream[crossing], side="right") - 1
        places = stream - self.run_starts[runs] + self.run_places[runs]  # [B, T] place in the store
        rows = gather(self.store, places, lengths, self.pad_id, examples)
        if not self.isolated:
            return rows
        documents = np.searchsorted(self.store.offsets, places, side="right") - 1
        documents[np.arange(documents.shape[1]) >= lengths[:, None]] = -1
        return replace(rows, documents=documents)


class Lines:
    """One document an example; a longer one than `block_size` is cut into windows that begin `stride` tokens apart.

    Every window has the document's separators around it. Documents without a single token of text are dropped.
    """

    def __init__(self, documents: Documents, block_size: int, pad_id: int, stride: int | None = None):
        self.store, self.pad_id = documents.store, pad_id
        self.before, self.after = len(self.store.prefix), len(self.store.suffix)
        num_separators = self.before + self.after
        self.window = block_size - num_separators  # tokens of text in one example
        self.stride = self.window if stride is None else stride
        self.starts = documents.starts + self.before  # [n] where each document's text begins in the store
        self.bodies = documents.lengths - num_separators  # [n] and how long it is
        windows = np.where(self.bodies > 0, 1 + np.maximum(0, -(-(self.bodies - self.window) // self.stride)), 0)
        self.last_windows = np.cumsum(windows)  # [n] number of examples up to and with each document
        further = int(np.maximum(windows - 1, 0).sum())
        self.num_repeated = further * (self.window - self.stride + num_separators)
        self.num_dropped = int((windows == 0).sum()) * num_separators
        self.num_tokens = int(self.bodies.sum()) + further * (self.window - self.stride) + len(self) * num_separators

    def __len__(self) -> int:
        return int(self.last_windows[-1]) if len(self.last_windows) else 0

    def rows(self, examples: np.ndarray) -> Rows:
        """These lines [B]: tokens [B, T], padded to the longest."""
        documents = np.searchsorted(self.last_windows, examples, side="right")
        firsts = np.where(documents > 0, self.last_windows[documents - 1], 0)
        begins = (examples - firsts) * self.stride
        counts = np.minimum(self.window, self.bodies[documents] - begins)
        lengths = counts + self.before + self.after
        columns = np.arange(lengths.max()) - self.before
        body = np.clip(columns, 0, counts[:, None] - 1)  # [B, T]; the separators' columns are overwritten below
        rows = gather(self.store, (self.starts[documents] + begins)[:, None] + body, lengths, self.pad_id, examples)
        rows.tokens[:, : self.before] = self.store.prefix
        rows.flags[:, : self.before] = SPECIAL
        for i, separator in enumerate(self.store.suffix):
            rows.tokens[np.arange(len(examples)), self.before + counts + i] = separator
            rows.flags[np.arange(len(examples)), self.before + counts + i] = SPECIAL
        return rows


def gather(store: TokenStore, places: np.ndarray, lengths: np.ndarray, pad_id: int, examples: np.ndarray) -> Rows:
    """The store's tokens at these places [B, T]; beyond each row's length, padding."""
    tokens, flags = store.tokens[places].astype(np.int64), store.flags[places]
    if lengths.min() < places.shape[1]:
        beyond = np.arange(places.shape[1]) >= lengths[:, None]
        tokens[beyond], flags[beyond] = pad_id, SPECIAL
    return Rows(tokens, flags, lengths, numbers=examples)


class Sample:
    """Some of the examples, chosen by seed; each keeps its number, so that its noise stays the same."""

    def __init__(self, examples: Examples, size: int, seed: int):
        self.examples = examples
        self.numbers = np.sort(Permutation(len(examples), key(seed, "sample"))(np.arange(size)))
        self.num_tokens = sum(  # in stretches, so that memory stays flat
            int(examples.rows(self.numbers[i : i + 1024]).lengths.sum()) for i in range(0, size, 1024)
        )
        self.num_repeated = examples.num_repeated
        self.num_dropped = examples.num_dropped + examples.num_tokens - self.num_tokens

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, examples: np.ndarray) -> Rows:
        """These of the chosen examples [B]."""
        return self.examples.rows(self.numbers[examples])
