"""The examples that are examined: some of a split's, cut to different lengths where that is possible."""

from dataclasses import replace

import numpy as np

from lmft.data.examples.base import Examples
from lmft.objectives.base import ANSWER, SPECIAL, Rows

_SHARES = (1.0, 0.7, 0.9, 0.5)  # of the longest row, in turns


class Examined:
    """Some examples of a split. Each keeps its number, and so its noise.

    Rows of equal length would hide what padding does, and that micro-batches weigh differently. So
    different shares of rows are kept: from the beginning of a text, and around the first answer of a
    chat or the target of a pair, where alone there are targets.
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
        return cut(rows, _first_columns(rows, self.limits[examples]), self.limits[examples], self.pad_id)

    def first(self, count: int) -> "Examined":
        """Return the first ones of whole rows."""
        return Examined(self.examples, self.numbers[:count], None, self.pad_id)


def _first_columns(rows: Rows, limits: np.ndarray) -> np.ndarray:
    """Return the first column [B] that is kept of each row if `limits` [B] tokens of it are kept.

    It is 0 if all tokens are learnt; else the first of those that are is in the middle of what is kept.
    """
    is_learnt = (rows.flags & ANSWER) != 0  # [B, T]
    if rows.trainable is not None:
        is_learnt = rows.trainable
    middle = np.where(is_learnt.any(axis=1), is_learnt.argmax(axis=1), 0)
    return np.clip(middle - limits // 2, 0, np.maximum(0, rows.lengths - limits))


def cut(rows: Rows, firsts: np.ndarray, limits: np.ndarray, pad_id: int) -> Rows:
    """Return at most `limits` [B] tokens of each row, from column `firsts` [B] on, as one rectangle."""
    lengths = np.minimum(rows.lengths - firsts, limits)
    columns = np.arange(lengths.max())
    is_padding = columns >= lengths[:, None]
    kept = np.minimum(firsts[:, None] + columns, rows.tokens.shape[1] - 1)  # [B, T]

    def of(values: np.ndarray, padding: int) -> np.ndarray:
        return np.where(is_padding, padding, np.take_along_axis(values, kept, axis=1))

    changes = {
        "tokens": of(rows.tokens, pad_id),
        "flags": of(rows.flags, int(SPECIAL)).astype(rows.flags.dtype),
    }
    if rows.documents is not None:
        changes["documents"] = of(rows.documents, -1)
    if rows.trainable is not None:
        changes["trainable"] = of(rows.trainable, 0).astype(bool)
    if rows.num_seen is not None:
        changes["num_seen"] = np.maximum(0, rows.num_seen - firsts)
    return replace(rows, lengths=lengths, **changes)
