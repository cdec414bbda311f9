"""Pairs of texts, as for summaries: the encoder reads the source, the decoder the target."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmft.objectives.base import ANSWER, Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences, left_pack


@dataclass(frozen=True)
class Pairs(Denoising):
    """A row holds a source and then a target, both with their separators; nothing is hidden.

    The target's tokens have the ANSWER flag, and only they count in the loss.
    """

    needs_pairs: ClassVar[bool] = True

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return the sources and the targets."""
        is_text = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]  # [B, T]
        is_target = (rows.flags & ANSWER) != 0  # [B, T]
        sources = left_pack(rows.tokens, is_text & ~is_target, vocabulary)
        targets = left_pack(rows.tokens, is_text & is_target, vocabulary)
        return sources, targets
