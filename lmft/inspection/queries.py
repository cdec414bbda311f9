"""Queries: the positions of a model's inputs whose hidden states predict the targets of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import IGNORED, num_predictions
from lmft.objectives.following import STREAMS


@dataclass(frozen=True)
class Queries:
    """Holds where each target of a batch is predicted."""

    stream: str
    """The sequence whose positions predict: the decoder's, if there is one."""
    rows: np.ndarray  # [K] row of each target; −1 in the padding of K
    columns: np.ndarray  # [K] its column in the stream

    def of_row(self, row: int) -> np.ndarray:
        """Return the numbers of a row's targets. [n]"""
        return np.flatnonzero(self.rows == row)


def queries(arrays: Mapping[str, np.ndarray]) -> Queries:
    """Return where the targets of a batch are predicted.

    In a permutation, they are at the columns that the rows of `target_mapping` [B, P, T] mark.
    """
    stream = STREAMS[1] if STREAMS[1] in arrays else STREAMS[0]
    mapping = arrays.get("target_mapping")
    rows, columns = np.divmod(arrays["target_index"], num_predictions(arrays))
    if mapping is not None:
        columns = mapping[rows, columns].argmax(axis=1)
    is_padding = arrays["targets"] == IGNORED
    return Queries(stream, np.where(is_padding, -1, rows), columns)
