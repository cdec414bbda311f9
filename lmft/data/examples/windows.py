"""Examples that keep documents apart: lines (one document per row) and packs (several whole ones)."""

from copy import copy
from dataclasses import replace

import numpy as np

from lmft.data.examples.documents import Documents
from lmft.data.examples.packing import best_fit_decreasing
from lmft.objectives.base import SPECIAL, Rows

_SHORTEST = 2  # tokens; a single token is not predicted from anything


class Windows:
    """Parts of at most `block_size` tokens, each of one document, with the separators around it.

    A longer document is cut into windows that begin `stride` tokens of text apart; with `only_first`,
    only the first one is kept. A window without a token that may be a target, or of a single token, is
    left out.
    """

    def __init__(self, documents: Documents, block_size: int, stride: int | None, only_first: bool):
        self.documents = documents
        self.is_numbered = False
        self.before = len(documents.store.prefix)
        self.after = len(documents.store.suffix)
        num_separators = self.before + self.after
        self.size = block_size - num_separators  # tokens of text in one window
        self.stride = self.size if stride is None else stride
        texts = documents.lengths - num_separators  # [documents] tokens of text
        self.too_long = np.flatnonzero(texts > self.size)  # indices of the documents
        counts = (texts > 0).astype(np.int64)  # [documents] windows of each
        if not only_first:
            counts += np.maximum(0, -(-(texts - self.size) // self.stride))

        document = np.repeat(np.arange(len(documents)), counts)  # [windows] index of its document
        nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.begins = nth * self.stride  # [windows] tokens of the document's text before it
        # [windows] where its text begins in the store.
        self.places = documents.starts[document] + self.before + self.begins
        self.bodies = np.minimum(self.size, texts[document] - self.begins)  # [windows] tokens of text
        has_target = self._num_trainable() > 0  # [windows]
        kept = has_target & (self.bodies + num_separators >= _SHORTEST)
        self._count_dropped(texts, document, has_target, kept)

        self.documents_cut = len(self.too_long) if only_first else 0
        self.document = document[kept]  # [windows] index of its document
        self.begins = self.begins[kept]
        self.places = self.places[kept]
        self.bodies = self.bodies[kept]
        self.lengths = self.bodies + num_separators  # [windows]
        self.num_tokens = int(self.lengths.sum())
        # Windows that follow another one of their document.
        further = np.flatnonzero(np.diff(self.document) == 0) + 1
        overlaps = np.maximum(0, self.size - (self.begins[further] - self.begins[further - 1]))
        self.num_repeated = int((overlaps + num_separators).sum())
        self.num_dropped = documents.num_tokens + self.num_repeated - self.num_tokens

    def _count_dropped(
        self, texts: np.ndarray, document: np.ndarray, has_target: np.ndarray, kept: np.ndarray
    ) -> None:
        """Count the documents without a window, by reason.

        Args:
            texts: [documents] tokens of text.
            document: [windows] index of its document.
            has_target: [windows] bool.
            kept: [windows] bool.
        """
        num_documents = len(texts)
        is_dropped = np.bincount(document[kept], minlength=num_documents) == 0
        is_targetless = np.bincount(document[has_target], minlength=num_documents) == 0
        is_targetless &= texts > 0
        num_targetless = int((is_dropped & is_targetless).sum())
        num_short = int((is_dropped & ~is_targetless).sum())
        self.documents_dropped: dict[str, int] = {}
        if num_targetless:
            self.documents_dropped["without a target"] = num_targetless
        if num_short:
            self.documents_dropped["too short"] = num_short
        # Index of the document.
        self.first_dropped = int(is_dropped.argmax()) if is_dropped.any() else None

    def _num_trainable(self) -> np.ndarray:
        """Return how many tokens of each window may be targets. [windows]

        A window's first token is not one of them, as nothing precedes it.
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
        """Return windows as rows, padded to the longest row.

        Args:
            windows: [n] numbers of the windows.
            row_of: [n] row of each window, ascending; windows of one row follow each other.
            examples: [B] numbers of the rows' examples.
            pad_id: the padding token.
            isolated: no token may attend to another window.
        """
        lengths = self.lengths[windows]
        # [n] where each begins in the sequence of all their tokens.
        starts = np.cumsum(lengths) - lengths
        num_rows = len(examples)
        row_lengths = np.bincount(row_of, lengths, num_rows).astype(np.int64)
        row_starts = np.cumsum(row_lengths) - row_lengths  # [B]
        window = np.repeat(np.arange(len(windows)), lengths)  # [N] window of each token
        row = row_of[window]  # [N]
        column = np.arange(len(window)) - row_starts[row]  # [N]
        # [N] place in the window's text; separators are outside.
        place = np.arange(len(window)) - starts[window] - self.before

        store = self.documents.store
        text_lengths = self.bodies[windows][window]  # [N]
        store_places = self.places[windows][window] + np.clip(place, 0, text_lengths - 1)
        flat_tokens = store.tokens[store_places].astype(np.int64)
        flat_flags = store.flags[store_places]
        for separators, first in ((store.prefix, -self.before), (store.suffix, text_lengths)):
            for i, separator in enumerate(separators):
                is_here = place == first + i
                flat_tokens[is_here] = separator
                flat_flags[is_here] = SPECIAL
        shape = (num_rows, int(row_lengths.max()))
        tokens = np.full(shape, pad_id)
        flags = np.full(shape, SPECIAL)
        documents = np.full(shape, -1)
        tokens[row, column] = flat_tokens
        flags[row, column] = flat_flags
        documents[row, column] = self._names(windows)[window]
        return Rows(
            tokens, flags, row_lengths, examples, documents, isolated, self.documents.trainable(flags)
        )

    def numbered(self) -> "Windows":
        """Return the same windows, whose rows have the numbers of documents in the store."""
        windows = copy(self)
        windows.is_numbered = True
        return windows

    def _names(self, windows: np.ndarray) -> np.ndarray:
        """Return the numbers that tell windows [n] apart in rows, or those of their documents. [n]"""
        if not self.is_numbered:
            return np.arange(len(windows))
        return np.searchsorted(self.documents.store.offsets, self.places[windows], side="right") - 1


class Lines:
    """One document per example, or one window of a long document."""

    has_one_document_each = True

    def __init__(
        self,
        documents: Documents,
        block_size: int,
        pad_id: int,
        stride: int | None = None,
        only_first: bool = False,
    ):
        self.windows = Windows(documents, block_size, stride, only_first)
        self.pad_id = pad_id
        self.lengths = self.windows.lengths
        self.num_tokens = self.windows.num_tokens
        self.num_repeated = self.windows.num_repeated
        self.num_dropped = self.windows.num_dropped
        self.documents_cut = self.windows.documents_cut
        self.documents_dropped = self.windows.documents_dropped

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return these lines [B]: tokens [B, T], padded to the longest."""
        windows = self.windows
        rows = windows.rows(examples, np.arange(len(examples)), examples, self.pad_id, isolated=False)
        rows = replace(rows, are_lines=True)
        if windows.stride == windows.size:
            return rows
        overlap = windows.before + windows.size - windows.stride
        return replace(rows, num_seen=np.where(windows.begins[examples] > 0, overlap, 0))

    def numbered(self) -> "Lines":
        """Return the same lines, whose rows have the number of their document in the store."""
        lines = copy(self)
        lines.windows = self.windows.numbered()
        return lines

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens. Arguments as in `Located`. [n]"""
        return self.windows.document[examples]


class Packs:
    """Several whole documents per example, up to `block_size` tokens; attention stays within each.

    Packs are made once, by best fit decreasing; the schedule orders them.
    """

    lengths = None
    has_one_document_each = False

    def __init__(self, documents: Documents, block_size: int, pad_id: int, only_first: bool = False):
        self.windows = Windows(documents, block_size, None, only_first)
        self.pad_id = pad_id
        self.members, self.offsets = best_fit_decreasing(self.windows.lengths, block_size)
        # In the sequence of all packs: [windows] where each member ends, [packs] where each begins.
        self.ends = np.cumsum(self.windows.lengths[self.members])
        self.begins = np.append(0, self.ends)[self.offsets[:-1]]
        self.num_tokens = self.windows.num_tokens
        self.num_repeated = self.windows.num_repeated
        self.num_dropped = self.windows.num_dropped
        self.documents_cut = self.windows.documents_cut
        self.documents_dropped = self.windows.documents_dropped

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, examples: np.ndarray) -> Rows:
        """Return these packs [B]: tokens [B, T], padded to the longest."""
        begins = self.offsets[examples]
        counts = self.offsets[examples + 1] - begins  # [B] windows of each pack
        row_of = np.repeat(np.arange(len(examples)), counts)  # [n]
        firsts = np.cumsum(counts) - counts
        members = self.members[begins[row_of] + np.arange(len(row_of)) - firsts[row_of]]  # [n]
        return self.windows.rows(members, row_of, examples, self.pad_id, isolated=True)

    def numbered(self) -> "Packs":
        """Return the same packs, whose rows have the numbers of their documents in the store."""
        packs = copy(self)
        packs.windows = self.windows.numbered()
        return packs

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens. Arguments as in `Located`. [n]"""
        members = self.ends.searchsorted(self.begins[examples] + columns, side="right")
        return self.windows.document[self.members[members]]
