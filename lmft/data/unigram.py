"""The baseline that knows only how frequent each token is."""

import math

import numpy as np

from lmft.data.examples import Blocks, Documents
from lmft.objectives.base import SPECIAL

_STRETCH = 1 << 16  # tokens counted at a time
_MOST_STRETCHES = 256  # of each side; more would not move the figure


def unigram_perplexity(train: Documents, validation: Documents, vocab_size: int) -> float | None:
    """Perplexity of the validation tokens under the training tokens' frequencies, each count raised by one.

    Special tokens are left out, and what is no target of chats; None where nothing else is there.
    """
    frequencies = _counts(train, vocab_size) + 1.0
    occurrences = _counts(validation, vocab_size)
    if not occurrences.sum():
        return None
    nats = -(occurrences * np.log(frequencies / frequencies.sum())).sum() / occurrences.sum()
    return math.exp(nats)


def _counts(documents: Documents, vocab_size: int) -> np.ndarray:
    """How often each token occurs in the first documents. [V] int64"""
    stretches = Blocks(documents, _STRETCH, pad_id=0)
    counts = np.zeros(vocab_size, np.int64)
    for number in range(min(len(stretches), _MOST_STRETCHES)):
        rows = stretches.rows(np.array([number]))
        counted = (rows.flags & SPECIAL) == 0
        if rows.trainable is not None:
            counted &= rows.trainable
        counts += np.bincount(rows.tokens[counted], minlength=vocab_size)
    return counts
