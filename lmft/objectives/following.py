"""Which token of its row each token of a batch is: found by a second batch, of numbered tokens.

An objective moves, hides and replaces tokens. It is given the same rows once more, with a number of its
own in the place of each token. As its noise depends on the tokens' places alone, it does the same again,
and the numbers tell where each token was before. So this works for a user's own objective, too.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lmft.objectives.base import SPECIAL, Noise, Objective, Rows, Vocabulary

STREAMS = ("input_ids", "decoder_input_ids")
"""Arguments of models: the token sequences that they read."""
NOWHERE = -1
"""The column of a token that the objective put there, and of padding."""
_FOLLOWED = (*STREAMS, "targets")


def followed(
    objective: Objective,
    rows: Rows,
    vocabulary: Vocabulary,
    noise: Noise,
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Return the column of its row that each token of a batch was in, and which tokens were followed.

    Args:
        objective: what made the batch.
        rows: the examples it was made of.
        vocabulary: as the objective was given it.
        noise: as the objective was given it.
        arrays: the batch, as the objective returned it.

    Returns: columns by the array's name, `input_ids` [B, T], `decoder_input_ids` [B, Td] and `targets`
        [K]; and [B, T] bool: of a row's other tokens no column tells. None if the objective does
        otherwise on numbered tokens: it reads which tokens it is given.
    """
    is_text = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]  # [B, T]
    is_last = np.arange(rows.tokens.shape[1]) == rows.lengths[:, None] - 1
    is_ordinary = (rows.flags & SPECIAL) == 0
    # Objectives look for the end-of-sequence token at a row's end, and perhaps for other special ones.
    is_end = is_last & (rows.tokens == vocabulary.eos_id)
    for is_numbered in (is_text & ~is_end, is_text & is_ordinary):
        columns = _columns(objective, rows, vocabulary, noise, arrays, is_numbered)
        if columns is not None:
            return columns, is_numbered
    return None


def _columns(
    objective: Objective,
    rows: Rows,
    vocabulary: Vocabulary,
    noise: Noise,
    arrays: Mapping[str, np.ndarray],
    is_numbered: np.ndarray,
) -> dict[str, np.ndarray] | None:
    """Return the columns that numbers in some tokens' places tell; None if they give another batch."""
    known = [rows.tokens, *(arrays[name] for name in _FOLLOWED if name in arrays)]
    first = max(vocabulary.size, *(int(ids.max(initial=0)) + 1 for ids in known))
    numbers = first + np.arange(rows.tokens.size).reshape(rows.tokens.shape)
    given = replace(rows, tokens=np.where(is_numbered, numbers, rows.tokens))
    try:
        made = objective(given, vocabulary, noise)
    except Exception:  # a user's objective may look ids up in a table of its own
        return None
    if made.keys() != arrays.keys():
        return None
    columns = {}
    for name, array in made.items():
        restored = array
        if name in _FOLLOWED:
            is_number = array >= first
            place = np.where(is_number, array - first, 0)
            restored = np.where(is_number, rows.tokens.ravel()[place], array)
            columns[name] = np.where(is_number, place % rows.tokens.shape[1], NOWHERE)
        if not np.array_equal(restored, arrays[name]):
            return None
    return columns
