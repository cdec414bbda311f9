"""Masked language modelling on whole words (Devlin et al.'s 2019 whole-word models; Cui et al. 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmft.objectives.base import WORD_START, Noise, Rows, Vocabulary
from lmft.objectives.masking import Masking, choose, may_be_hidden

_SURELY_A_WORD = 4  # tokens; words of up to this length stay whole in the shortest rows, too


@dataclass(frozen=True)
class MaskedWords(Masking):
    """Each word becomes a target, with all its tokens, with probability `mlm_probability`.

    Each example has at least one. Words are those of the tokenizer's `word_ids`; the part of a word that
    a block's edge cuts off counts as a word.

    In scripts without spaces, `word_ids` take a clause or a line for a word. What has more tokens than
    `mlm_probability` of its example is no word: its tokens become targets one by one, so that the
    expected share of the tokens that are targets stays `mlm_probability`.
    """

    mlm_probability: float = 0.2

    needs_word_starts: ClassVar[bool] = True

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, T] with targets hidden, target_index [K], targets [K]."""
        positions = np.arange(rows.tokens.shape[1])
        candidates = may_be_hidden(rows)
        starts = np.where((rows.flags & WORD_START) != 0, positions, 0)
        word = np.maximum.accumulate(starts, axis=1)  # [B, T] where the token's word begins
        word = np.where(self._is_too_long(word, candidates), positions, word)
        bits = np.take_along_axis(noise.bits("select", positions), word, axis=1)
        chosen = choose(bits, candidates, self.mlm_probability)
        return self.hide(rows, chosen, vocabulary, noise)

    def _is_too_long(self, word: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return which tokens are in a stretch that is too long for a word. [B, T] bool

        Args:
            word: [B, T] where the token's word begins.
            candidates: [B, T] bool: tokens that may be hidden.
        """
        num_rows, num_tokens = word.shape
        word = word + num_tokens * np.arange(num_rows)[:, None]  # [B, T] flat
        sizes = np.bincount(word[candidates], minlength=num_rows * num_tokens)
        num_candidates = candidates.sum(axis=1)  # [B]
        longest = np.maximum((self.mlm_probability * num_candidates).astype(np.int64), _SURELY_A_WORD)
        longest = np.minimum(longest, num_candidates - 1)  # no word is a whole example
        return sizes[word] > longest[:, None]
