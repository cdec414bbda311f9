"""Causal language modelling: each token is predicted from those before it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary, padded_targets


@dataclass(frozen=True)
class NextToken(Objective):
    """Predicts every trainable token at the position before it, special tokens included.

    The first token of a row, and of an isolated document, has nothing before it and is no target.
    Padding comes after the text, where no position attends to it. It is recognised by position, not by
    its id: a padding token that is also the end-of-text token hides no target.
    """

    families = ("causal",)
    is_likelihood: ClassVar[bool] = True

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, T], target_index and targets [K], and document_ids [B, T] if isolated."""
        return causal_batch(rows)


def causal_batch(rows: Rows) -> dict[str, np.ndarray]:
    """Return the batch that predicts every token of these rows that may be a target."""
    num_tokens = rows.tokens.shape[1]
    columns = np.arange(num_tokens)
    predicted = columns < rows.lengths[:, None]  # [B, T]
    predicted[:, 0] = False
    if rows.trainable is not None:
        predicted &= rows.trainable
    if rows.num_seen is not None:
        predicted &= columns >= rows.num_seen[:, None]
    inputs = {"input_ids": rows.tokens}
    if rows.isolated:
        assert rows.documents is not None
        predicted[:, 1:] &= rows.documents[:, 1:] == rows.documents[:, :-1]
        inputs["document_ids"] = rows.documents
    row, column = np.nonzero(predicted)  # [N] each
    return inputs | padded_targets(row * num_tokens + column - 1, rows.tokens[row, column])
