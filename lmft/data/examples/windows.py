"""Examples that keep documents apart: lines (one document per row) and packs (several whole ones)."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from lmft.data.examples.column import Column
from lmft.data.examples.documents import Documents, Stretch
from lmft.data.examples.packing import best_fit_decreasing
from lmft.objectives.base import SPECIAL, Rows

_SHORTEST = 2  # tokens; a single token is not predicted from anything
_REASONS = ("without a target", "too short")  # for which a document has no window
_OF_WINDOWS = ("document", "begins", "places", "bodies", "lengths")


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
        self.only_first = only_first
        self.num_tokens = 0
        self.num_repeated = 0
        self._dropped = dict.fromkeys(_REASONS, 0)
        self.first_dropped: int | None = None  # index of the document
        columns = {name: Column() for name in ("too_long", *_OF_WINDOWS)}
        num_documents = 0
        for stretch in documents.stretches():
            self._list(stretch, num_documents, columns)
            num_documents += len(stretch.starts)
        self.too_long = columns["too_long"].values()  # indices of the documents
        self.document = columns["document"].values()  # [windows] index of its document
        self.begins = columns["begins"].values()  # [windows] tokens of the document's text before it
        self.places = columns["places"].values()  # [windows] where its text begins in the store
        self.bodies = columns["bodies"].values()  # [windows] tokens of text
        self.lengths = columns["lengths"].values()  # [windows]
        self.documents_cut = len(self.too_long) if only_first else 0
        self.documents_dropped = {reason: count for reason, count in self._dropped.items() if count}
        self.num_dropped = documents.num_tokens + self.num_repeated - self.num_tokens

    def _list(self, stretch: Stretch, num_before: int, columns: Mapping[str, Column]) -> None:
        """List the windows of a stretch of documents.

        Args:
            stretch: the documents.
            num_before: documents in earlier stretches.
            columns: what is kept of each window, and `too_long`.
        """
        num_separators = self.before + self.after
        texts = stretch.ends - stretch.starts - num_separators  # [documents] tokens of text
        columns["too_long"].append(num_before + np.flatnonzero(texts > self.size))
        counts = (texts > 0).astype(np.int64)  # [documents] windows of each
        if not self.only_first:
            counts += np.maximum(0, -(-(texts - self.size) // self.stride))
        document = np.repeat(np.arange(len(texts)), counts)  # [windows] index in the stretch
        nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        begins = nth * self.stride  # [windows]
        places = stretch.starts[document] + self.before + begins  # [windows]
        bodies = np.minimum(self.size, texts[document] - begins)  # [windows]
        has_target = self._num_trainable(stretch, places, bodies) > 0  # [windows]
        kept = has_target & (bodies + num_separators >= _SHORTEST)
        self._count_dropped(num_before, texts, document, has_target, kept)

        document = document[kept]
        begins = begins[kept]
        lengths = bodies[kept] + num_separators
        # Windows that follow another one of their document.
        further = np.flatnonzero(np.diff(document) == 0) + 1
        overlaps = np.maximum(0, self.size - (begins[further] - begins[further - 1]))
        self.num_tokens += int(lengths.sum())
        self.num_repeated += int((overlaps + num_separators).sum())
        listed = (num_before + document, begins, places[kept], bodies[kept], lengths)
        for name, values in zip(_OF_WINDOWS, listed, strict=True):
            columns[name].append(values)

    def _count_dropped(
        self,
        num_before: int,
        texts: np.ndarray,
        document: np.ndarray,
        has_target: np.ndarray,
        kept: np.ndarray,
    ) -> None:
        """Count the documents of a stretch without a window, by reason.

        Args:
            num_before: documents in earlier stretches.
            texts: [documents] tokens of text.
            document: [windows] index of its document in the stretch.
            has_target: [windows] bool.
            kept: [windows] bool.
        """
        num_documents = len(texts)
        is_dropped = np.bincount(document[kept], minlength=num_documents) == 0
        is_targetless = np.bincount(document[has_target], minlength=num_documents) == 0
        is_targetless &= texts > 0
        for reason, dropped in zip(_REASONS, (is_targetless, ~is_targetless), strict=True):
            self._dropped[reason] += int((is_dropped & dropped).sum())
        if self.first_dropped is None and is_dropped.any():
            self.first_dropped = num_before + int(is_dropped.argmax())

    def _num_trainable(self, stretch: Stretch, places: np.ndarray, bodies: np.ndarray) -> np.ndarray:
        """Return how many tokens of each window of a stretch may be targets. [windows]

        A window's first token is not one of them, as nothing precedes it.
        """
        if not self.documents.trainable_bit or not len(places):
            return bodies
        start = int(stretch.starts[0])
        flags = self.documents.store.read("flags", start, int(stretch.ends[-1]))
        trainable = self.documents.trainable(flags)
        assert trainable is not None
        first = places - start + (1 if self.before == 0 else 0)
        ends = np.stack([first, np.maximum(first, places - start + bodies)], axis=1).ravel()
        sums = np.add.reduceat(np.append(trainable, False), ends, dtype=np.int64)[::2]
        return np.where(bodies > (self.before == 0), sums, 0)

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
