"""Masked language modelling on single tokens (Devlin et al. 2018, section 3.1)."""

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.masking import Masking, choose, may_be_hidden


class MaskedTokens(Masking):
    """Every token that is not special becomes a target with probability `mlm_probability`, at least one an example."""

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """input_ids [B, T] with targets hidden, target_index [K], targets [K]."""
        bits = noise.bits("select", np.arange(rows.tokens.shape[1]))  # [B, T]
        chosen = choose(bits, may_be_hidden(rows), self.mlm_probability)
        return self.hide(rows, chosen, vocabulary, noise)
