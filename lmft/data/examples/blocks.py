"""Blocks: windows of one length over the stream of documents."""

from dataclasses import replace

import numpy as np

from lmft.data.examples.documents import Documents, gather
from lmft.objectives.base import Rows


class Blocks:
    """Windows of `block_size` tokens over the stream of documents, with their separators. The last may be
    shorter.

    numbered: tell each token's document; isolated: and that attention is to be kept inside it.
    """

    lengths = None
    num_repeated = num_dropped = documents_cut = 0

    def __init__(
        self,
        documents: Documents,
        block_size: int,
        pad_id: int,
        isolated: bool = False,
        numbered: bool = False,
    ):
        self.documents, self.block_size, self.pad_id = documents, block_size, pad_id
        self.isolated, self.numbered = isolated, isolated or numbered
        self.documents_dropped: dict[str, int] = {}
        self.num_tokens = documents.num_tokens
        joins = np.flatnonzero(documents.starts[1:] != documents.starts[:-1] + documents.lengths[:-1]) + 1
        firsts = np.concatenate(([0], joins)) if len(documents) else np.zeros(0, np.int64)
        # [n] where each document begins in the stream.
        stream_starts = np.cumsum(documents.lengths) - documents.lengths
        # [runs] of neighbouring documents: where each begins in the stream.
        self.run_starts = stream_starts[firsts]
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
            # Place in the stream.
            stream = np.minimum(starts[crossing, None] + columns, stops[crossing, None] - 1)
            runs = np.searchsorted(self.run_starts, stream, side="right") - 1
            places[crossing] = stream - self.run_starts[runs] + self.run_places[runs]
        rows = gather(self.documents, places, lengths, self.pad_id, examples)
        if not self.numbered:
            return rows
        documents = np.searchsorted(self.documents.store.offsets, places, side="right") - 1
        documents[np.arange(documents.shape[1]) >= lengths[:, None]] = -1
        return replace(rows, documents=documents, isolated=self.isolated)
