"""Examples of one pair each, whose source and target are limited separately."""

from copy import copy
from dataclasses import replace

import numpy as np

from lmft.data.examples.documents import Documents, gather
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
        limits = np.array([max_source_tokens, max_target_tokens])
        for (side, (prefix, suffix)), limit in zip(templates.items(), limits, strict=True):
            if limit <= len(prefix) + len(suffix):
                raise UserError(f"data.max_{side}_tokens={limit} leaves no room between the separators")
        # [2] separators after each side.
        self.after = np.array([len(suffix) for _, suffix in templates.values()])
        is_answer = (store.flags & ANSWER) != 0
        targets = np.add.reduceat(is_answer, store.offsets[:-1], dtype=np.int64)[documents.numbers]
        # [pairs, 2] tokens of each side.
        self.whole = np.stack([documents.lengths - targets, targets], axis=1)
        self.kept = np.minimum(self.whole, limits)  # [pairs, 2]
        self.lengths = self.kept.sum(axis=1)  # [pairs]
        self.too_long = np.flatnonzero((self.whole > limits).any(axis=1))  # indices of documents
        self.documents_cut = len(self.too_long)
        self.num_tokens = int(self.lengths.sum())
        self.num_dropped = documents.num_tokens - self.num_tokens

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return these pairs [B]: tokens [B, T], padded to the longest."""
        whole = self.whole[examples]
        kept = self.kept[examples]
        lengths = self.lengths[examples]
        columns = np.arange(lengths.max())
        side = (columns >= kept[:, :1]).astype(np.int64)  # [B, T] 0: source, 1: target
        within = columns - side * kept[:, :1]  # [B, T] column in the side
        whole_side = np.take_along_axis(whole, side, axis=1)  # [B, T]
        kept_side = np.take_along_axis(kept, side, axis=1)  # [B, T]
        is_after_cut = within >= kept_side - self.after[side]
        places = self.documents.starts[examples, None] + side * whole[:, :1] + within
        places += is_after_cut * (whole_side - kept_side)
        # Only places of padding, which `gather` overwrites, can lie outside the store.
        places = np.minimum(places, len(self.documents.store.tokens) - 1)
        rows = gather(self.documents, places, lengths, self.pad_id, examples)
        if not self.is_numbered:
            return rows
        is_text = columns < lengths[:, None]
        return replace(rows, documents=np.where(is_text, self.documents.numbers[examples, None], -1))

    def numbered(self) -> "PairLines":
        """Return the same pairs, whose rows have the number of their document in the store."""
        pairs = copy(self)
        pairs.is_numbered = True
        return pairs

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens: an example is a document. Arguments as in `Located`. [n]"""
        return examples
