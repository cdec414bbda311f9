"""The ledger: what became of every token, and the unigram baseline."""

import math
from typing import Any

import numpy as np

from lmft.data.examples.base import Examples
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.errors import UserError
from lmft.objectives.base import SPECIAL

_STRETCH = 1 << 16  # tokens counted at a time
_MOST_STRETCHES = 256  # of each side; more would not move the figure


def account(texts: Documents, examples: Examples) -> dict[str, Any]:
    """tokens + tokens_repeated = tokens_in_examples + tokens_dropped."""
    return {
        "documents": len(texts),
        "documents_cut": examples.documents_cut or None,
        "documents_dropped": examples.documents_dropped or None,
        "bytes": texts.num_bytes,
        "tokens": texts.num_tokens,
        "examples": len(examples),
        "tokens_in_examples": examples.num_tokens,
        "tokens_repeated": examples.num_repeated,
        "tokens_dropped": examples.num_dropped,
    }


def check_enough_examples(num_examples: int, batch_size: int, num_devices: int) -> None:
    """Raises UserError if an epoch does not fill one batch."""
    needed = batch_size * num_devices
    if num_examples < needed:
        raise UserError(
            f"the training text makes {num_examples} examples, fewer than one batch of {needed}",
            fix=f"data.batch_size={max(1, num_examples // num_devices)}, a smaller data.block_size, or more text",
        )


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
