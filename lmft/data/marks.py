"""Statistics of the flags of a text: tokens per word, and examples of a single sentence.

Both show whether an objective on words or sentences can do what its name says on this text.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmft.data.examples.base import Examples
from lmft.objectives.base import SENTENCE_END, SPECIAL, WORD_START, Objective, Rows

log = logging.getLogger(__name__)
_AT_A_TIME = 256  # examples
_MOST_EXAMPLES = 1 << 14  # counted of each split; more would hardly change the numbers
_LONG_WORD = 6.0  # tokens per word, more than even single letters make in scripts with spaces


def account_of_marks(objective: Objective, examples: Examples, split: str) -> dict[str, Any]:
    """Return a split's entries in the ledger about words and sentences, if the objective needs them.

    A warning is logged if they cannot be told apart.
    """
    entries: dict[str, Any] = {}
    if objective.needs_word_starts:
        entries["tokens_per_word"] = _tokens_per_word(examples)
        _warn_of_words(entries["tokens_per_word"], split)
    if objective.needs_sentence_ends:
        num_single, num_counted = _single_sentences(examples)
        entries["one_sentence"] = round(num_single / num_counted, 4)
        if num_single > num_counted / 2:
            log.warning(
                "%s: %d of %d examples hold no end of a sentence before another sentence, so their "
                "sentences are not permuted; objective.permute_sentences=0 permutes none",
                split,
                num_single,
                num_counted,
            )
    return entries


def _tokens_per_word(examples: Examples) -> float | None:
    """Return the mean length of a word in tokens; None if no text is in the examples."""
    num_words = 0
    num_tokens = 0
    for rows in _counted(examples):
        ordinary = (rows.flags & SPECIAL) == 0
        num_tokens += int(ordinary.sum())
        num_words += int((ordinary & ((rows.flags & WORD_START) != 0)).sum())
    return round(num_tokens / max(1, num_words), 2) if num_tokens else None


def _warn_of_words(tokens_per_word: float | None, split: str) -> None:
    if tokens_per_word is None:
        return
    if tokens_per_word > _LONG_WORD:
        log.warning(
            "%s: words have %.1f tokens on average, as in scripts without spaces, where the tokenizer "
            "cannot tell words; words that are too long are masked token by token; "
            "objective=mlm masks single tokens everywhere",
            split,
            tokens_per_word,
        )
    if tokens_per_word < 1.02:
        log.warning(
            "%s: every word is one token, so objective=whole_word does the same as objective=mlm", split
        )


def _single_sentences(examples: Examples) -> tuple[int, int]:
    """Return how many examples have no document with two sentences, and how many were looked at."""
    num_single = 0
    num_counted = 0
    for rows in _counted(examples):
        ordinary = (rows.flags & SPECIAL) == 0
        ends = ordinary & ((rows.flags & SENTENCE_END) != 0)
        is_followed = ends[:, :-1] & ordinary[:, 1:]  # the next token is of the same document
        num_single += int((~is_followed.any(axis=1)).sum())
        num_counted += len(rows.tokens)
    return num_single, num_counted


def _counted(examples: Examples) -> Iterator[Rows]:
    """Yield the rows of examples spread evenly over the split."""
    num = min(len(examples), _MOST_EXAMPLES)
    numbers = np.linspace(0, len(examples) - 1, num).astype(np.int64)
    for part in np.array_split(numbers, -(-num // _AT_A_TIME)):
        yield examples.rows(part)
