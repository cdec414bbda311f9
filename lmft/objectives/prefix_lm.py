"""Prefix language modelling: the encoder reads the beginning of a text, the decoder continues it."""

from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences, check_end, ended, left_pack, without_end


@dataclass(frozen=True)
class PrefixLM(Denoising):
    """Raffel et al. 2020, section 3.3.1: a text is split in two at a uniformly random place.

    Each part has at least one token, and then the end-of-sequence token. If a text is a single token,
    its second part is the end-of-sequence token alone.
    """

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raise ValueError without an end-of-sequence token, or if texts are too short to be split."""
        super().check_text(vocabulary, num_tokens)
        check_end(vocabulary)
        if num_tokens < 2:
            raise ValueError(f"texts of {num_tokens} tokens are too short to be split in two")

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return the text up to the split, and the rest."""
        rows = without_end(rows, vocabulary)
        bits = noise.bits("split", np.zeros(1, np.int64))[:, 0]  # [B]
        num_places = np.maximum(rows.lengths - 1, 1)
        splits = 1 + (bits % num_places.astype(np.uint64)).astype(np.int64)  # [B] where the rest begins
        text = ended(rows, vocabulary)  # [B, T + 1]
        prefix = text.copy()
        prefix[np.arange(len(splits)), splits] = vocabulary.eos_id
        columns = np.arange(text.shape[1])
        in_prefix = columns <= splits[:, None]
        in_rest = (columns >= splits[:, None]) & (columns <= rows.lengths[:, None])
        return left_pack(prefix, in_prefix, vocabulary), left_pack(text, in_rest, vocabulary)
