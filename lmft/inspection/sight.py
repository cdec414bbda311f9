"""Sight: which positions of its own sequence each prediction of a batch may read."""

from collections.abc import Mapping

import numpy as np

from lmft.inspection.queries import Queries
from lmft.objectives.following import STREAMS

Ranges = list[list[int]]  # [start, stop) of the columns that are seen, ascending


def sight(
    arrays: Mapping[str, np.ndarray],
    queries: Queries,
    number: int,
    length: int,
    is_causal: bool,
) -> np.ndarray:
    """Return which columns of its stream the prediction of a target sees. [T] bool

    It follows from the masks in the batch, and from the order of reading. A decoder's prediction sees
    the whole of the encoder's input too.

    Args:
        arrays: the batch.
        queries: the positions that predict.
        number: of the target.
        length: tokens of the stream that are not padding.
        is_causal: whether a token of `input_ids` sees only the tokens before it.
    """
    row = int(queries.rows[number])
    column = int(queries.columns[number])
    columns = np.arange(arrays[queries.stream].shape[1])
    seen = columns < length
    if is_causal or queries.stream == STREAMS[1]:
        seen &= columns <= column
    if queries.stream != STREAMS[0]:
        return seen
    if "perm_mask" in arrays:
        seen &= arrays["perm_mask"][row, column] == 0
    if "document_ids" in arrays:
        documents = arrays["document_ids"][row]
        seen &= documents == documents[column]
    mask = arrays.get("attention_mask")
    if mask is not None:
        seen &= _row_of_mask(mask, row, column)
    return seen


def _row_of_mask(mask: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return what a mask of [B, T], [B, T, T] or [B, heads, T, T] lets a position see. [T] bool"""
    if mask.ndim == 2:
        return mask[row] != 0
    square = mask[row]
    if square.ndim == 3:
        square = square[0]
    seen = square[column]
    # A mask of floats is added to the scores: 0 where a token is seen.
    return seen == 0 if np.issubdtype(mask.dtype, np.floating) else seen != 0


def ranges(seen: np.ndarray) -> Ranges:
    """Return the ranges of columns that are seen.

    >>> ranges(np.array([True, True, False, True]))
    [[0, 2], [3, 4]]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()
