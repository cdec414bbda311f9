"""Masked language modelling on whole words (Devlin et al.'s 2019 whole-word models; Cui et al. 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmft.objectives.base import WORD_START, Noise, Rows, Vocabulary
from lmft.objectives.masking import Masking, choose, may_be_hidden


@dataclass(frozen=True)
class MaskedWords(Masking):
    """Each word becomes a target, with all its tokens, with probability `mlm_probability`.

    Each example has at least one. Words are those of the tokenizer's `word_ids`; the part of a word that
    a block's edge cuts off counts as a word.
    """

    mlm_probability: float = 0.2

    needs_word_starts: ClassVar[bool] = True

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, T] with targets hidden, target_index [K], targets [K]."""
        positions = np.arange(rows.tokens.shape[1])
        starts = np.where((rows.flags & WORD_START) != 0, positions, 0)
        word = np.maximum.accumulate(starts, axis=1)  # [B, T] where the token's word begins
        bits = np.take_along_axis(noise.bits("select", positions), word, axis=1)
        chosen = choose(bits, may_be_hidden(rows), self.mlm_probability)
        return self.hide(rows, chosen, vocabulary, noise)
