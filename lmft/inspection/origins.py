"""Find the origin of each token of a batch, by following it through the objective or by comparing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmft.inspection.comparing import compared
from lmft.inspection.queries import Queries
from lmft.objectives.base import Noise, Objective, Rows, Vocabulary
from lmft.objectives.following import NOWHERE, followed


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
    found = followed(objective, rows, vocabulary, noise, arrays)
    if found is None:
        return Origins(compared(rows, arrays, queries, is_text), are_exact=False)
    columns, is_followed = found
    _match_in_order(columns, rows, arrays, queries, is_text & ~is_followed)
    return Origins(columns, are_exact=True)


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
