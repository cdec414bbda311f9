"""Masked language modelling on single tokens (Devlin et al. 2018, section 3.1)."""

from dataclasses import asdict, dataclass

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary
from lmft.objectives.denoising import check_decoder, shifted_right
from lmft.objectives.masking import Masking, choose, may_be_hidden


class MaskedTokens(Masking):
    """Every token that is not special becomes a target with probability `mlm_probability`, at least one an
    example.
    """

    families = ("masked", "seq2seq")

    def for_family(self, family: str) -> Objective | None:
        """Itself, or what hides the same tokens from the encoder of a model that says them by a decoder."""
        return MaskedDenoising(**asdict(self)) if family == "seq2seq" else super().for_family(family)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """input_ids [B, T] with targets hidden, target_index [K], targets [K]."""
        bits = noise.bits("select", np.arange(rows.tokens.shape[1]))  # [B, T]
        chosen = choose(bits, may_be_hidden(rows), self.mlm_probability)
        return self.hide(rows, chosen, vocabulary, noise)


@dataclass(frozen=True)
class MaskedDenoising(MaskedTokens):
    """The encoder reads masks, the decoder says what they hide.

    The decoder goes through the whole original text, but only the hidden tokens are targets. Both sides have
    the same length, so what is hidden at a column is said at that column.
    """

    mask_share: float = 1.0
    random_share: float = 0.0

    families = ("seq2seq",)

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raises ValueError where the tokenizer has no mask token or the decoder nothing to begin with."""
        super().check(vocabulary, block_size)
        check_decoder(vocabulary)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """input_ids [B, T] with targets hidden, decoder_input_ids [B, T], target_index [K], targets [K]."""
        return super().__call__(rows, vocabulary, noise) | {
            "decoder_input_ids": shifted_right(rows.tokens, vocabulary)
        }
