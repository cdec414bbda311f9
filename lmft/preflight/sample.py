"""Documents of a split, spread evenly over it, as text."""

from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.examples.documents import Documents
from lmft.objectives.base import SPECIAL


def spread(total: int, num: int) -> np.ndarray:
    """Return at most `num` numbers below `total`, evenly apart. [min(num, total)] int64"""
    return np.unique(np.linspace(0, total - 1, min(num, total)).astype(np.int64))


class Text:
    """Reads stretches of documents, and their text without special tokens."""

    def __init__(self, texts: Documents, tokenizer: PreTrainedTokenizerBase):
        self.texts = texts
        self.tokenizer = tokenizer

    def tokens(self, document: int, most: int) -> np.ndarray:
        """Return the ordinary ones of the first tokens of a document. [at most `most`]"""
        starts, stops = self.texts.spans_at(np.array([document]))
        start = int(starts[0])
        return self.ordinary(start, min(start + most, int(stops[0])))

    def ordinary(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens of a stretch of the store that may be targets, without special ones."""
        tokens = self.texts.store.tokens[start:stop]
        flags = self.texts.store.flags[start:stop]
        is_kept = (flags & SPECIAL) == 0
        trainable = self.texts.trainable(flags)
        if trainable is not None:
            is_kept &= trainable
        return tokens[is_kept].astype(np.int64)

    def decoded(self, parts: Iterable[np.ndarray]) -> list[str]:
        """Return the text of each of these lists of tokens."""
        decode = self.tokenizer.decode
        return [str(decode(part.tolist(), skip_special_tokens=True)) for part in parts]
