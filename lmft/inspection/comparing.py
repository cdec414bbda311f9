"""Origins of a batch's tokens by comparing ids with the row's, where tokens cannot be followed."""

from collections.abc import Mapping
from difflib import SequenceMatcher

import numpy as np

from lmft.inspection.queries import Queries
from lmft.objectives.base import Rows
from lmft.objectives.following import NOWHERE, STREAMS

_ALIKE = 0.5  # share of equal columns from which a sequence is the row with some tokens replaced


def compared(
    rows: Rows, arrays: Mapping[str, np.ndarray], queries: Queries, is_text: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the likely column of the row that each token of a batch comes from, by the array's name.

    Args:
        rows: the rows.
        arrays: the batch.
        queries: the positions that predict.
        is_text: [B, T] bool: the tokens of the rows that are not padding.
    """
    names = [name for name in STREAMS if name in arrays]
    found = {name: np.full(arrays[name].shape, NOWHERE) for name in names}
    found["targets"] = np.full(arrays["targets"].shape, NOWHERE)
    for row, length in enumerate(is_text.sum(axis=1).tolist()):
        tokens = rows.tokens[row, :length]
        for name in names:
            found[name][row] = _aligned(arrays[name][row], tokens)
        is_hidden = ~np.isin(np.arange(length), found[STREAMS[0]][row])
        numbers = queries.of_row(row)
        ids = arrays["targets"][numbers]
        found["targets"][numbers] = _nearest(ids, queries.columns[numbers], tokens, is_hidden)
    return found


def _aligned(ids: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the columns of `tokens` [T] that `ids` [n] come from if their order is the same. [n]"""
    origin = np.full(len(ids), NOWHERE)
    num_both = min(len(ids), len(tokens))
    is_equal = ids[:num_both] == tokens[:num_both]
    if num_both and is_equal.mean() >= _ALIKE:
        origin[:num_both] = np.where(is_equal, np.arange(num_both), NOWHERE)
        return origin
    matcher = SequenceMatcher(None, tokens.tolist(), ids.tolist(), autojunk=False)
    for block in matcher.get_matching_blocks():
        origin[block.b : block.b + block.size] = np.arange(block.a, block.a + block.size)
    return origin


def _nearest(
    ids: np.ndarray, columns: np.ndarray, tokens: np.ndarray, is_hidden: np.ndarray
) -> np.ndarray:
    """Return for each target the nearest equal token of the row, if possible a hidden one. [n]

    Args:
        ids: [n] the targets.
        columns: [n] where each is predicted.
        tokens: [T] the row.
        is_hidden: [T] bool: tokens of the row that are not in the model's inputs.
    """
    origin = np.full(len(ids), NOWHERE)
    is_left = np.ones(len(tokens), bool)
    for number, (token, column) in enumerate(zip(ids, columns, strict=True)):
        equal = np.flatnonzero(is_left & (tokens == token))
        if not len(equal):
            continue
        # The token after the query is nearest: often each token is predicted by the one before it.
        distance = np.abs(equal - column - 0.75) + len(tokens) * ~is_hidden[equal]
        origin[number] = equal[distance.argmin()]
        is_left[origin[number]] = False
    return origin
