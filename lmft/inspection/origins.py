"""Where each token of a batch comes from: found by a second batch, made of tokens that can be followed.

An objective moves, hides and replaces tokens. It is given the same rows once more, with a number of its
own in the place of each token. As its noise depends on the tokens' places alone, it does the same again,
and the numbers tell where each token was before. So every objective can be shown, a user's own too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmft.inspection.comparing import NOWHERE, compared
from lmft.inspection.queries import STREAMS, Queries
from lmft.objectives.base import SPECIAL, Noise, Objective, Rows, Vocabulary

_FOLLOWED = (*STREAMS, "targets")


@dataclass(frozen=True)
class Origins:
    """The column of its row that each token of a batch comes from; NOWHERE: from none."""

    of: Mapping[str, np.ndarray]
    """By the array's name: `input_ids` [B, T], `decoder_input_ids` [B, Td], `targets` [K]."""
    are_exact: bool
    """False: the objective reads which tokens it is given, so equal tokens were compared instead."""


def origins(
    objective: Objective,
    rows: Rows,
    vocabulary: Vocabulary,
    noise: Noise,
    arrays: Mapping[str, np.ndarray],
    queries: Queries,
) -> Origins:
    """Return where the tokens of a batch come from.

    Args:
        objective: what made the batch.
        rows: the examples it was made of.
        vocabulary: as the objective was given it.
        noise: as the objective was given it.
        arrays: the batch, as the objective returned it.
        queries: the positions that predict.
    """
    is_text = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]  # [B, T]
    is_ordinary = (rows.flags & SPECIAL) == 0
    # Objectives may look for special tokens, so these are left as they are if following them fails.
    for is_followed in (is_text, is_text & is_ordinary):
        found = _followed(objective, rows, vocabulary, noise, arrays, is_followed)
        if found is not None:
            _match_in_order(found, rows, arrays, queries, is_text & ~is_followed)
            return Origins(found, are_exact=True)
    return Origins(compared(rows, arrays, queries, is_text), are_exact=False)


def _followed(
    objective: Objective,
    rows: Rows,
    vocabulary: Vocabulary,
    noise: Noise,
    arrays: Mapping[str, np.ndarray],
    is_followed: np.ndarray,
) -> dict[str, np.ndarray] | None:
    """Return the origins of the tokens that are followed; None if the objective then does otherwise."""
    num_columns = rows.tokens.shape[1]
    first = max(vocabulary.size, int(rows.tokens.max()) + 1)
    numbers = first + np.arange(rows.tokens.size).reshape(rows.tokens.shape)
    given = replace(rows, tokens=np.where(is_followed, numbers, rows.tokens))
    try:
        made = objective(given, vocabulary, noise)
    except (
        Exception
    ):  # a user's objective may look ids up in a table of its own; then tokens are compared
        return None
    found = {}
    if made.keys() != arrays.keys():
        return None
    for name, array in made.items():
        restored = array
        if name in _FOLLOWED:
            is_number = array >= first
            place = np.where(is_number, array - first, 0)
            restored = np.where(is_number, rows.tokens.ravel()[place], array)
            found[name] = np.where(is_number, place % num_columns, NOWHERE)
        if not np.array_equal(restored, arrays[name]):
            return None
    return found


def _match_in_order(
    found: dict[str, np.ndarray],
    rows: Rows,
    arrays: Mapping[str, np.ndarray],
    queries: Queries,
    candidates: np.ndarray,
) -> None:
    """Give tokens without an origin that of an equal token of their row, the first that is left.

    Args:
        found: the origins so far, which are changed.
        rows: the rows.
        arrays: the batch.
        queries: the positions that predict.
        candidates: [B, T] bool: the tokens of the rows that may be an origin.
    """
    for row in np.flatnonzero(candidates.any(axis=1)).tolist():
        for name, origin in found.items():
            places = queries.of_row(row) if name == "targets" else (row, slice(None))
            left = _columns_of(rows.tokens[row], candidates[row])
            origin[places] = _matched(arrays[name][places], origin[places], left)


def _columns_of(tokens: np.ndarray, candidates: np.ndarray) -> dict[int, list[int]]:
    """Return the columns of each token among the candidates, the last one first."""
    columns: dict[int, list[int]] = {}
    for column in np.flatnonzero(candidates)[::-1].tolist():
        columns.setdefault(int(tokens[column]), []).append(column)
    return columns


def _matched(ids: np.ndarray, origin: np.ndarray, left: dict[int, list[int]]) -> np.ndarray:
    """Return origins [n] in which tokens without one have the first column left of an equal token."""
    matched = origin.copy()
    for place in np.flatnonzero(origin == NOWHERE).tolist():
        columns = left.get(int(ids[place]))
        if columns:
            matched[place] = columns.pop()
    return matched
