"""Examples of one pair each, whose source and target are limited separately."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from lmft.data.examples.column import Column
from lmft.data.examples.documents import Documents, Stretch, gather
from lmft.errors import UserError
from lmft.objectives.base import ANSWER, Rows


class PairLines:
    """One pair per example: the source, then the target, each with its separators.

    If a side is longer than its limit, the end of its text is left out; its separators stay.
    """

    num_repeated = 0
    has_one_document_each = True

    def __init__(
        self, documents: Documents, max_source_tokens: int, max_target_tokens: int, pad_id: int
    ):
        self.documents = documents
        self.is_numbered = False
        self.pad_id = pad_id
        self.documents_dropped: dict[str, int] = {}
        store = documents.store
        templates = {
            "source": (store.prefix, store.suffix),
            "target": (store.meta["target_prefix"], store.meta["target_suffix"]),
        }
        self.limits = np.array([max_source_tokens, max_target_tokens])
        for (side, (prefix, suffix)), limit in zip(templates.items(), self.limits, strict=True):
            if limit <= len(prefix) + len(suffix):
                raise UserError(f"data.max_{side}_tokens={limit} leaves no room between the separators")
        # [2] separators after each side.
        self.after = np.array([len(suffix) for _, suffix in templates.values()])
        columns = {name: Column() for name in ("starts", "whole", "lengths", "too_long")}
        self.num_tokens = 0
        num_documents = 0
        for stretch in documents.stretches():
            self._list(stretch, num_documents, columns)
            num_documents += len(stretch.starts)
        self.starts = columns["starts"].values()  # [pairs] where each begins in the store
        self.whole = columns["whole"].values().reshape(-1, 2)  # [pairs, 2] tokens of each side
        self.lengths = columns["lengths"].values()  # [pairs]
        self.too_long = columns["too_long"].values()  # indices of documents
        self.documents_cut = len(self.too_long)
        self.num_dropped = documents.num_tokens - self.num_tokens

    def _list(self, stretch: Stretch, num_before: int, columns: Mapping[str, Column]) -> None:
        """List a stretch of pairs.

        Args:
            stretch: the pairs.
            num_before: pairs in earlier stretches.
            columns: what is kept of each pair, and `too_long`.
        """
        start = int(stretch.starts[0])
        is_answer = (self.documents.store.read("flags", start, int(stretch.ends[-1])) & ANSWER) != 0
        before = np.append(0, np.cumsum(is_answer))  # [tokens + 1] of targets before each token
        targets = before[stretch.ends - start] - before[stretch.starts - start]
        whole = np.stack([stretch.ends - stretch.starts - targets, targets], axis=1)
        lengths = np.minimum(whole, self.limits).sum(axis=1)
        self.num_tokens += int(lengths.sum())
        columns["starts"].append(stretch.starts)
        columns["whole"].append(whole.ravel())
        columns["lengths"].append(lengths)
        columns["too_long"].append(num_before + np.flatnonzero((whole > self.limits).any(axis=1)))

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return these pairs [B]: tokens [B, T], padded to the longest."""
        whole = self.whole[examples]
        kept = np.minimum(whole, self.limits)
        lengths = self.lengths[examples]
        columns = np.arange(lengths.max())
        side = (columns >= kept[:, :1]).astype(np.int64)  # [B, T] 0: source, 1: target
        within = columns - side * kept[:, :1]  # [B, T] column in the side
        whole_side = np.take_along_axis(whole, side, axis=1)  # [B, T]
        kept_side = np.take_along_axis(kept, side, axis=1)  # [B, T]
        is_after_cut = within >= kept_side - self.after[side]
        places = self.starts[examples, None] + side * whole[:, :1] + within
        places += is_after_cut * (whole_side - kept_side)
        # Only places of padding, which `gather` overwrites, can lie outside the store.
        places = np.minimum(places, len(self.documents.store.tokens) - 1)
        rows = gather(self.documents, places, lengths, self.pad_id, examples)
        if not self.is_numbered:
            return rows
        is_text = columns < lengths[:, None]
        numbers = self.documents.numbers_at(examples)
        return replace(rows, documents=np.where(is_text, numbers[:, None], -1))

    def numbered(self) -> "PairLines":
        """Return the same pairs, whose rows have the number of their document in the store."""
        pairs = copy(self)
        pairs.is_numbered = True
        return pairs

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens: an example is a document. Arguments as in `Located`. [n]"""
        return examples
