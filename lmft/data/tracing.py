"""Which document each target of a batch is of."""

from collections.abc import Mapping

import numpy as np

from lmft.data.examples.base import Located
from lmft.objectives.base import (
    IGNORED,
    Noise,
    Objective,
    Rows,
    Vocabulary,
    num_predictions,
)
from lmft.objectives.following import NOWHERE, followed

NO_DOCUMENT = -1


def target_documents(
    examples: Located,
    numbers: np.ndarray,
    rows: Rows,
    objective: Objective,
    vocabulary: Vocabulary,
    noise: Noise,
    batch: Mapping[str, np.ndarray],
) -> np.ndarray | None:
    """Return the document of each target, as an index among the split's documents. [K] int64

    A token that the objective has added (a sentinel, an end-of-sequence token) is of the document of the
    token that follows it among the row's targets; of the one before it if none follows. Padding of K has
    the document −1.

    Args:
        examples: the split's examples.
        numbers: [B] their numbers.
        rows: the examples with these numbers.
        objective: the objective.
        vocabulary: the facts about the tokenizer.
        noise: the rows' noise.
        batch: what the objective has made of them.

    Returns: None if it cannot be told where in the rows the targets are.
    """
    is_target = batch["targets"] != IGNORED
    targets = batch["targets"][is_target]
    row, column = np.divmod(batch["target_index"][is_target], num_predictions(batch))
    if not examples.has_one_document_each:
        column = column + ("causal" in objective.families)
        is_at_its_place = column.max(initial=0) < rows.tokens.shape[1]
        if not is_at_its_place or (rows.tokens[row, column] != targets).any():
            found = followed(objective, rows, vocabulary, noise, batch)
            if found is None:
                return None
            columns, _ = found
            column = _with_neighbours(row, columns["targets"][is_target])
    documents = np.full(len(is_target), NO_DOCUMENT)
    documents[is_target] = examples.documents_at(numbers[row], column)
    return documents


def _with_neighbours(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the columns [N] with those that are missing filled from the nearest target of the row [N].

    It is the next one that has a column, else the one before; without any, the first column.
    """
    is_placed = column != NOWHERE
    numbers = np.arange(len(row))
    following = np.where(is_placed, numbers, len(row))
    following = np.minimum.accumulate(following[::-1])[::-1]
    before = np.maximum.accumulate(np.where(is_placed, numbers, -1))
    filled = np.zeros_like(column)
    for nearest in (before, following):  # the latter last, so that it decides
        inside = (nearest >= 0) & (nearest < len(row))
        inside[inside] = row[nearest[inside]] == row[inside]
        filled[inside] = column[nearest[inside]]
    return filled
