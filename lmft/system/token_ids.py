"""The ids of a tokenizer, which may leave some numbers out. Imports nothing heavy."""

from typing import Any


def num_ids(tokenizer: Any) -> int:
    """Return the rows that an embedding needs for a tokenizer: its largest id + 1.

    That is more than `len(tokenizer)` if the vocabulary leaves ids out.
    """
    return max(tokenizer.get_vocab().values()) + 1
