"""Pairs of texts, such as articles and their summaries: the encoder reads the one, the decoder says the
other.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmft.objectives.base import ANSWER, Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences, left_pack


@dataclass(frozen=True)
class Pairs(Denoising):
    """A row holds a source and then a target, whose tokens have the ANSWER flag; both with their separators.

    Nothing is hidden, and only the target's tokens count.
    """

    needs_pairs: ClassVar[bool] = True

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """The sources and the targets."""
        inside = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]  # [B, T]
        answer = (rows.flags & ANSWER) != 0
        return left_pack(rows.tokens, inside & ~answer, vocabulary), left_pack(
            rows.tokens, inside & answer, vocabulary
        )
