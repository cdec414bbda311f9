"""Which document each target of a batch is of."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lmft.data.examples.base import Located
from lmft.objectives.base import IGNORED, Noise, Objective, Rows, Vocabulary

_FIRST = 1 << 40  # above every token id
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
    row, column = np.divmod(batch["target_index"][is_target], _width(batch))
    if not examples.has_one_document_each:
        column = column + ("causal" in objective.families)
        is_at_its_place = column.max(initial=0) < rows.tokens.shape[1]
        if not is_at_its_place or (rows.tokens[row, column] != targets).any():
            found = _traced(rows, row, targets, objective, vocabulary, noise)
            if found is None:
                return None
            column = found
    documents = np.full(len(is_target), NO_DOCUMENT)
    documents[is_target] = examples.documents_at(numbers[row], column)
    return documents


def _width(batch: Mapping[str, np.ndarray]) -> int:
    """Return the number of hidden states of a row, by which `target_index` counts."""
    for name in ("target_mapping", "decoder_input_ids", "input_ids"):
        if name in batch:
            return batch[name].shape[1]
    raise KeyError("input_ids")


def _traced(
    rows: Rows,
    row: np.ndarray,
    targets: np.ndarray,
    objective: Objective,
    vocabulary: Vocabulary,
    noise: Noise,
) -> np.ndarray | None:
    """Return the column of each target's token in its row [N]; None if it cannot be told.

    The objective makes the batch once more, of rows whose tokens are the numbers of their places.
    """
    if not objective.ignores_ids:
        return None
    num_rows, num_tokens = rows.tokens.shape
    numbered = _FIRST + np.arange(num_rows * num_tokens).reshape(num_rows, num_tokens)
    # The last token may be an end-of-sequence token, which objectives look for there.
    last = np.arange(num_rows), rows.lengths - 1
    numbered[last] = np.where(rows.tokens[last] == vocabulary.eos_id, rows.tokens[last], numbered[last])
    batch = objective(replace(rows, tokens=numbered), vocabulary, noise)
    traced = batch["targets"][batch["targets"] != IGNORED]  # [N]
    is_placed = traced >= _FIRST
    places = np.where(is_placed, traced - _FIRST, 0)
    if len(traced) != len(targets) or (rows.tokens.ravel()[places] != targets)[is_placed].any():
        return None
    return _with_neighbours(row, places % num_tokens, is_placed)


def _with_neighbours(row: np.ndarray, column: np.ndarray, is_placed: np.ndarray) -> np.ndarray:
    """Return the columns [N] with those that are missing filled from the nearest target of the row.

    It is the next one that has a column, else the one before; without any, the first column.
    """
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
