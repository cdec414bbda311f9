"""Queries: the positions of a model's inputs whose hidden states predict the targets of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import IGNORED

STREAMS = ("input_ids", "decoder_input_ids")  # arguments of models: the token sequences that they read


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

    `target_index` counts the model's hidden states. These are those of the decoder, if it has one; of
    the queries in `target_mapping` [B, P, T], each at the column that its row marks, in a permutation;
    and else of the inputs.
    """
    stream = STREAMS[1] if STREAMS[1] in arrays else STREAMS[0]
    index = arrays["target_index"]
    mapping = arrays.get("target_mapping")
    width = arrays[stream].shape[1] if mapping is None else mapping.shape[1]
    rows, columns = np.divmod(index, width)
    if mapping is not None:
        columns = mapping[rows, columns].argmax(axis=1)
    is_padding = arrays["targets"] == IGNORED
    return Queries(stream, np.where(is_padding, -1, rows), columns)
