"""The ledger: documents, tokens and examples counted, from text to examples; and the unigram
baseline.
"""

import logging
import math
from typing import Any

import numpy as np

from lmft.data.examples.base import Examples
from lmft.data.examples.documents import Documents
from lmft.errors import UserError
from lmft.objectives.base import SPECIAL

log = logging.getLogger(__name__)
_MUCH_UNKNOWN = 0.01  # share of unknown tokens or bytes that is warned about
_MOST_COUNTED = 1 << 22  # tokens of each split; more would hardly change the perplexity


def account(texts: Documents, examples: Examples) -> dict[str, Any]:
    """Return a split's ledger; tokens + tokens_repeated = tokens_in_examples + tokens_dropped."""
    return {
        "documents": len(texts),
        "documents_removed": texts.num_removed or None,
        "documents_cut": examples.documents_cut or None,
        "documents_dropped": examples.documents_dropped or None,
        "bytes": texts.num_bytes,
        "unknown_bytes": texts.unknown_bytes or None,
        "tokens": texts.num_tokens,
        "unknown_tokens": texts.unknown_tokens or None,
        "examples": len(examples),
        "tokens_in_examples": examples.num_tokens,
        "tokens_repeated": examples.num_repeated,
        "tokens_dropped": examples.num_dropped,
    }


def unknown_warning(ledger: dict[str, Any], examples: list[str]) -> str | None:
    """Return a warning if more than one in a hundred tokens, or bytes, of a split are unknown.

    Args:
        ledger: the split's ledger.
        examples: texts that the vocabulary cannot express.
    """
    num_tokens = ledger["unknown_tokens"] or 0
    num_bytes = ledger["unknown_bytes"] or 0
    shares = num_tokens / max(1, ledger["tokens"]), num_bytes / max(1, ledger["bytes"])
    if max(shares) <= _MUCH_UNKNOWN:
        return None
    of_tokens, of_bytes = shares
    return (
        f"the vocabulary cannot express {of_bytes:.1%} of the text ({num_bytes:,} bytes), such as "
        f"{' '.join(examples)}: {of_tokens:.1%} of the tokens ({num_tokens:,}) are unknown. "
        "Another tokenizer may know them; from scratch, model.tokenizer.train=true learns them"
    )


def check_enough_examples(
    num_examples: int, batch_size: int, num_devices: int, are_few_meant: bool = False
) -> None:
    """Warn if an epoch does not fill one batch. Raise UserError if a device would get no example.

    are_few_meant: whether the training is to learn a few examples by heart; it is not warned about.
    """
    counted = f"the training text makes {num_examples} {'example' if num_examples == 1 else 'examples'}"
    if num_examples < num_devices:
        what = f"{counted}, fewer than the {num_devices} devices"
        raise UserError(what, fix=f"trainer.devices={max(1, num_examples)}, or more text")
    if num_examples < batch_size * num_devices and not are_few_meant:
        message = "%s, fewer than one batch of %d: each epoch is one small batch"
        log.warning(message, counted, batch_size * num_devices)


def unigram_perplexity(train: Documents, validation: Documents, vocab_size: int) -> float | None:
    """Return the perplexity of the validation tokens under the training tokens' frequencies.

    One is added to each count. Special tokens, and tokens that chats do not train on, are left out; None
    if there are no others.
    """
    frequencies = counted_tokens(train, vocab_size) + 1.0
    occurrences = counted_tokens(validation, vocab_size)
    if not occurrences.sum():
        return None
    nats = -(occurrences * np.log(frequencies / frequencies.sum())).sum() / occurrences.sum()
    return math.exp(nats)


def token_counts(documents: Documents, vocab_size: int) -> np.ndarray:
    """Return how often each token occurs, estimated from the beginning of a long text. [V] float64

    Special tokens, and tokens that chats do not train on, are left out.
    """
    counted = min(documents.num_tokens, _MOST_COUNTED)
    return counted_tokens(documents, vocab_size) * (documents.num_tokens / max(1, counted))


def counted_tokens(documents: Documents, vocab_size: int) -> np.ndarray:
    """Count each token in the first documents. [V] int64

    The tokens are read, not mapped: held-out documents are in all pages of a map, which would stay.
    """
    store = documents.store
    counts = np.zeros(vocab_size, np.int64)
    left = _MOST_COUNTED
    for stretch in documents.stretches():
        start = int(stretch.starts[0])
        stop = int(stretch.ends[-1])
        lengths = stretch.ends - stretch.starts
        shifts = stretch.starts - start - (np.cumsum(lengths) - lengths)  # [documents]
        places = (np.arange(lengths.sum()) + np.repeat(shifts, lengths))[:left]  # [n]
        left -= len(places)
        flags = store.read("flags", start, stop)[places]
        counted = (flags & SPECIAL) == 0
        trainable = documents.trainable(flags)
        if trainable is not None:
            counted &= trainable
        tokens = store.read("tokens", start, stop)[places]
        counts += np.bincount(tokens[counted], minlength=vocab_size)
        if not left:
            break
    return counts
