"""Masked language modelling on single tokens (Devlin et al. 2018, section 3.1)."""

from dataclasses import asdict, dataclass

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary
from lmft.objectives.denoising import check_decoder, shifted_right
from lmft.objectives.masking import Masking, choose, may_be_hidden


class MaskedTokens(Masking):
    """Each ordinary token is a target with probability `mlm_probability`, at least one per example."""

    families = ("masked", "seq2seq")

    def for_family(self, family: str) -> Objective | None:
        """Return MaskedDenoising for seq2seq models, else this objective; None if it does not fit."""
        if family == "seq2seq":
            return MaskedDenoising(**asdict(self))
        return super().for_family(family)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, T] with targets hidden, target_index [K], targets [K]."""
        bits = noise.bits("select", np.arange(rows.tokens.shape[1]))  # [B, T]
        chosen = choose(bits, may_be_hidden(rows), self.mlm_probability)
        return self.hide(rows, chosen, vocabulary, noise)


@dataclass(frozen=True)
class MaskedDenoising(MaskedTokens):
    """The encoder reads masks, and the decoder predicts the tokens they hide.

    The decoder is given the whole original text, but only the hidden tokens are targets. Both sides have
    the
    same length: the token hidden at a column is predicted at that column.
    """

    mask_share: float = 1.0
    random_share: float = 0.0

    families = ("seq2seq",)

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if the tokenizer has no mask token or the decoder no start token."""
        super().check(vocabulary, block_size)
        check_decoder(vocabulary)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids and decoder_input_ids [B, T], target_index [K] and targets [K]."""
        batch = super().__call__(rows, vocabulary, noise)
        return batch | {"decoder_input_ids": shifted_right(rows.tokens, vocabulary)}
