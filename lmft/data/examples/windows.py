"""Examples that respect documents: lines, one a row, and packs, several whole ones a row."""

from dataclasses import replace

import numpy as np

from lmft.data.examples.documents import Documents
from lmft.data.examples.packing import best_fit_decreasing
from lmft.objectives.base import SPECIAL, Rows

_SHORTEST = 2  # tokens; of a single one nothing is learnt


class Windows:
    """Stretches of at most `block_size` tokens, each of one document and with its separators around it.

    A longer document is cut into windows that begin `stride` tokens apart, or, with `only_first`, loses its
    end. What holds no token that may be a target, or is a single token, is left out and counted.
    """

    def __init__(self, documents: Documents, block_size: int, stride: int | None, only_first: bool):
        self.documents = documents
        store = documents.store
        self.before, self.after = len(store.prefix), len(store.suffix)
        num_separators = self.before + self.after
        self.size = block_size - num_separators  # tokens of text in one window
        self.stride = self.size if stride is None else stride
        bodies = documents.lengths - num_separators  # [documents]
        self.too_long = np.flatnonzero(bodies > self.size)  # [long] places among the documents
        num_further = np.maximum(0, -(-(bodies - self.size) // self.stride))
        # [documents] windows of each.
        counts = np.where(bodies > 0, 1 + (0 if only_first else num_further), 0)

        of = np.repeat(np.arange(len(documents)), counts)  # [windows] place of its document
        begins = (np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)) * self.stride
        self.begins = begins  # [windows] tokens of the document's text before it
        # [windows] where its text begins in the store.
        self.places = documents.starts[of] + self.before + begins
        self.bodies = np.minimum(self.size, bodies[of] - begins)  # [windows] tokens of text
        targets = self._num_trainable()
        kept = (targets > 0) & (self.bodies + num_separators >= _SHORTEST)
        whole = np.bincount(of[kept], minlength=len(documents)) > 0
        hopeless = np.bincount(of[targets > 0], minlength=len(documents)) == 0

        self.documents_dropped = {
            reason: int(count)
            for reason, count in (
                ("without a target", (~whole & hopeless & (bodies > 0)).sum()),
                ("too short", (~whole & ~(hopeless & (bodies > 0))).sum()),
            )
            if count
        }
        # Place of the document.
        self.first_dropped = int(np.flatnonzero(~whole)[0]) if not whole.all() else None
        self.documents_cut = len(self.too_long) if only_first else 0
        self.begins, self.places, self.bodies = self.begins[kept], self.places[kept], self.bodies[kept]
        self.lengths = self.bodies + num_separators  # [windows]
        self.num_tokens = int(self.lengths.sum())
        # Windows that follow another one of their document.
        further = np.flatnonzero(np.diff(of[kept]) == 0) + 1
        overlaps = np.maximum(0, self.size - (self.begins[further] - self.begins[further - 1]))
        self.num_repeated = int((overlaps + num_separators).sum())
        self.num_dropped = documents.num_tokens + self.num_repeated - self.num_tokens

    def _num_trainable(self) -> np.ndarray:
        """Tokens of each window that may be targets; its first one, which nothing precedes, is none.
        [windows]
        """
        trainable = self.documents.trainable(self.documents.store.flags)
        if trainable is None or not len(self.places):
            return self.bodies
        first = self.places + (1 if self.before == 0 else 0)
        ends = np.stack([first, np.maximum(first, self.places + self.bodies)], axis=1).ravel()
        sums = np.add.reduceat(np.append(trainable, False), ends, dtype=np.int64)[::2]
        return np.where(self.bodies > (self.before == 0), sums, 0)

    def rows(
        self, windows: np.ndarray, row_of: np.ndarray, examples: np.ndarray, pad_id: int, isolated: bool
    ) -> Rows:
        """These windows [n], each in its row [n] (not decreasing) behind those before it, padded to the
        longest row.
        """
        lengths = self.lengths[windows]
        starts = np.cumsum(lengths) - lengths  # [n] in one line of all windows
        num_rows = len(examples)
        row_lengths = np.bincount(row_of, lengths, num_rows).astype(np.int64)
        row_starts = np.cumsum(row_lengths) - row_lengths
        of = np.repeat(np.arange(len(windows)), lengths)  # [N] window of each token
        # [N] place in the window's text; separators outside.
        inside = np.arange(len(of)) - starts[of] - self.before
        row, column = row_of[of], np.arange(len(of)) - row_starts[row_of[of]]

        store, bodies = self.documents.store, self.bodies[windows]
        places = self.places[windows][of] + np.clip(inside, 0, bodies[of] - 1)
        found, kinds = store.tokens[places].astype(np.int64), store.flags[places]
        for separators, first in ((store.prefix, -self.before), (store.suffix, bodies[of])):
            for i, separator in enumerate(separators):
                here = inside == first + i
                found[here], kinds[here] = separator, SPECIAL
        shape = (num_rows, int(row_lengths.max()))
        tokens, flags = np.full(shape, pad_id), np.full(shape, SPECIAL)
        tokens[row, column], flags[row, column] = found, kinds
        documents = np.full(shape, -1)
        documents[row, column] = of
        return Rows(
            tokens, flags, row_lengths, examples, documents, isolated, self.documents.trainable(flags)
        )


class Lines:
    """One document an example, or one window of a long document."""

    def __init__(
        self,
        documents: Documents,
        block_size: int,
        pad_id: int,
        stride: int | None = None,
        only_first: bool = False,
    ):
        self.windows, self.pad_id = Windows(documents, block_size, stride, only_first), pad_id
        self.lengths = self.windows.lengths
        self.num_tokens, self.num_repeated = self.windows.num_tokens, self.windows.num_repeated
        self.num_dropped, self.documents_cut = self.windows.num_dropped, self.windows.documents_cut
        self.documents_dropped = self.windows.documents_dropped

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, examples: np.ndarray) -> Rows:
        """These lines [B]: tokens [B, T], padded to the longest."""
        windows = self.windows
        rows = windows.rows(examples, np.arange(len(examples)), examples, self.pad_id, isolated=False)
        rows = replace(rows, are_lines=True)
        if windows.stride == windows.size:
            return rows
        overlap = windows.before + windows.size - windows.stride
        return replace(rows, num_seen=np.where(windows.begins[examples] > 0, overlap, 0))


class Packs:
    """Several whole documents an example, at most `block_size` tokens; no token attends to another document.

    Which documents share a pack is decided once, by best fit decreasing; the order of packs is the
    schedule's.
    """

    lengths = None

    def __init__(self, documents: Documents, block_size: int, pad_id: int, only_first: bool = False):
        self.windows, self.pad_id = Windows(documents, block_size, None, only_first), pad_id
        self.members, self.offsets = best_fit_decreasing(self.windows.lengths, block_size)
        self.num_tokens, self.num_repeated = self.windows.num_tokens, self.windows.num_repeated
        self.num_dropped, self.documents_cut = self.windows.num_dropped, self.windows.documents_cut
        self.documents_dropped = self.windows.documents_dropped

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, examples: np.ndarray) -> Rows:
        """These packs [B]: tokens [B, T], padded to the longest."""
        begins, ends = self.offsets[examples], self.offsets[examples + 1]
        row_of = np.repeat(np.arange(len(examples)), ends - begins)
        firsts = np.cumsum(ends - begins) - (ends - begins)
        members = self.members[begins[row_of] + np.arange(len(row_of)) - firsts[row_of]]
        return self.windows.rows(members, row_of, examples, self.pad_id, isolated=True)
