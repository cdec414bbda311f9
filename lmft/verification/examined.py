"""The examples that are examined: some of a split's, cut to different lengths where that is possible."""

from dataclasses import replace

import numpy as np

from lmft.data.examples.base import Examples
from lmft.objectives.base import SPECIAL, Rows

_SHARES = (1.0, 0.7, 0.9, 0.5)  # of the longest row, in turns


class Examined:
    """Some examples of a split. Each keeps its number, and so its noise.

    Rows of equal length would hide what padding does, and that micro-batches weigh differently. So rows
    that may be cut keep different shares of their tokens.
    """

    def __init__(self, examples: Examples, numbers: np.ndarray, longest: int | None, pad_id: int):
        """Choose examples.

        Args:
            examples: those of the split.
            numbers: [n] numbers of the chosen ones in the split.
            longest: tokens of the longest row that is kept; None: rows stay whole.
            pad_id: the padding token.
        """
        self.examples = examples
        self.numbers = numbers
        self.pad_id = pad_id
        self.limits = None
        if longest is not None:
            shares = np.resize(_SHARES, len(numbers))
            self.limits = np.maximum(2, (longest * shares).astype(np.int64))  # [n]
        self.row_lengths = self.rows(np.arange(len(numbers))).lengths  # [n]
        self.lengths = None
        if examples.lengths is not None:
            self.lengths = self.row_lengths
        self.num_tokens = int(self.row_lengths.sum())
        self.num_repeated = 0
        self.num_dropped = 0
        self.documents_dropped: dict[str, int] = {}
        self.documents_cut = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return the examples with these numbers [B] among the chosen ones as one rectangle."""
        rows = self.examples.rows(self.numbers[examples])
        if self.limits is None:
            return rows
        return cut(rows, self.limits[examples], self.pad_id)

    def first(self, count: int) -> "Examined":
        """Return the first ones of whole rows."""
        return Examined(self.examples, self.numbers[:count], None, self.pad_id)


def cut(rows: Rows, limits: np.ndarray, pad_id: int) -> Rows:
    """Return rows of at most `limits` [B] tokens, in a rectangle as wide as the longest."""
    lengths = np.minimum(rows.lengths, limits)
    width = int(lengths.max())
    is_padding = np.arange(width) >= lengths[:, None]
    changes = {
        "tokens": np.where(is_padding, pad_id, rows.tokens[:, :width]),
        "flags": np.where(is_padding, SPECIAL, rows.flags[:, :width]),
    }
    if rows.documents is not None:
        changes["documents"] = np.where(is_padding, -1, rows.documents[:, :width])
    if rows.trainable is not None:
        changes["trainable"] = ~is_padding & rows.trainable[:, :width]
    return replace(rows, lengths=lengths, **changes)
