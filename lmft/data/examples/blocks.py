"""Blocks: consecutive pieces of one length of the stream of documents."""

from copy import copy
from dataclasses import replace

import numpy as np

from lmft.data.examples.documents import Documents, gather
from lmft.objectives.base import Rows


class Blocks:
    """Consecutive blocks of `block_size` tokens of the stream of documents, separators included.

    The last block may be shorter.
    """

    lengths = None
    has_one_document_each = False
    num_repeated = num_dropped = documents_cut = 0

    def __init__(
        self,
        documents: Documents,
        block_size: int,
        pad_id: int,
        isolated: bool = False,
        numbered: bool = False,
    ):
        """Split the stream of documents into blocks.

        Args:
            documents: in the order of the stream.
            block_size: tokens of a block.
            pad_id: the padding token.
            isolated: no token may attend to another document.
            numbered: the rows tell each token's document, as isolated ones do.
        """
        self.documents = documents
        self.block_size = block_size
        self.pad_id = pad_id
        self.isolated = isolated
        self.is_numbered = isolated or numbered
        self.documents_dropped: dict[str, int] = {}
        self.num_tokens = documents.num_tokens
        self.run_starts = documents.run_starts  # [runs] where each begins in the stream
        self.run_ends = np.append(self.run_starts[1:], self.num_tokens)  # [runs] where it ends there
        # [runs] what to add to a place in the stream to get the place in the store.
        self.run_shifts = documents.run_places - self.run_starts

    def __len__(self) -> int:
        return -(-self.num_tokens // self.block_size)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return these blocks [B]: tokens [B, T], padded only if the last block is among them."""
        starts = examples * self.block_size
        stops = np.minimum(starts + self.block_size, self.num_tokens)
        lengths = stops - starts
        columns = np.arange(lengths.max())
        first_runs = self.run_starts.searchsorted(starts, side="right") - 1
        places = (starts + self.run_shifts[first_runs])[:, None] + columns  # [B, T] place in the store
        crosses = (stops > self.run_ends[first_runs]) | (lengths < len(columns))
        if crosses.any():
            crossing = crosses.nonzero()[0]
            # [crossing, T] place in the stream.
            stream = np.minimum(starts[crossing, None] + columns, stops[crossing, None] - 1)
            runs = self.run_starts.searchsorted(stream, side="right") - 1
            places[crossing] = stream + self.run_shifts[runs]
        rows = gather(self.documents, places, lengths, self.pad_id, examples)
        if not self.is_numbered:
            return rows
        documents = np.searchsorted(self.documents.store.offsets, places, side="right") - 1
        documents[np.arange(documents.shape[1]) >= lengths[:, None]] = -1
        return replace(rows, documents=documents, isolated=self.isolated)

    def numbered(self) -> "Blocks":
        """Return the same blocks, whose rows tell each token's document."""
        blocks = copy(self)
        blocks.is_numbered = True
        return blocks

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens. Arguments as in `Located`. [n]"""
        places = examples * self.block_size + columns
        return np.searchsorted(self.documents.stream_starts, places, side="right") - 1
