"""Prefix language modelling: the encoder reads how a text begins, the decoder goes on with it."""

from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences, check_end, ended, left_pack, without_end


@dataclass(frozen=True)
class PrefixLM(Denoising):
    """Raffel et al. 2020, section 3.3.1: a text is split in two at a random place, each as probable as the
    others.

    Both parts have at least one token, and end with the end-of-sequence token. Of a text of a single token
    the rest is that end alone.
    """

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raises ValueError without an end-of-sequence token, or where texts are too short to be split."""
        super().check_text(vocabulary, num_tokens)
        check_end(vocabulary)
        if num_tokens < 2:
            raise ValueError(f"texts of {num_tokens} tokens are too short to be split in two")

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """The text up to the split, and the rest."""
        rows = without_end(rows, vocabulary)
        bits = noise.bits("split", np.zeros(1, np.int64))[:, 0]  # [B]
        num_places = np.maximum(rows.lengths - 1, 1)
        splits = 1 + (bits % num_places.astype(np.uint64)).astype(np.int64)  # [B] where the rest begins
        text = ended(rows, vocabulary)  # [B, T + 1]
        prefix = text.copy()
        prefix[np.arange(len(splits)), splits] = vocabulary.eos_id
        columns = np.arange(text.shape[1])
        in_rest = (columns >= splits[:, None]) & (columns <= rows.lengths[:, None])
        return left_pack(prefix, columns <= splits[:, None], vocabulary), left_pack(text, in_rest, vocabulary)
