"""Examples: what a batch is cut from, and a sample of them."""

from typing import Protocol

import numpy as np

from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation
from lmft.objectives.base import Rows


class Examples(Protocol):
    """What a batch is cut from."""

    # tokens of the documents + num_repeated = num_tokens + num_dropped
    num_tokens: int  # in all examples, padding not counted
    num_repeated: int  # of these, seen more than once: overlapping windows, separators around each window
    num_dropped: int  # in no example
    documents_dropped: dict[str, int]  # why whole documents are in no example, and how many
    documents_cut: int  # of which the end is in no example

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray | None:
        """[examples] tokens of each; None where they hardly differ."""
        ...

    def rows(self, examples: np.ndarray) -> Rows:
        """These examples [B] as one rectangle, padded to the longest."""
        ...


class Sample:
    """Some of the examples, chosen by seed; each keeps its number, so that its noise stays the same."""

    def __init__(self, examples: Examples, size: int, seed: int):
        self.examples = examples
        self.numbers = np.sort(Permutation(len(examples), key(seed, "sample"))(np.arange(size)))
        self.num_tokens = sum(  # in stretches, so that memory stays flat
            int(examples.rows(self.numbers[i : i + 1024]).lengths.sum()) for i in range(0, size, 1024)
        )
        self.lengths = None if examples.lengths is None else examples.lengths[self.numbers]
        self.num_repeated = examples.num_repeated
        self.documents_dropped, self.documents_cut = examples.documents_dropped, examples.documents_cut
        self.num_dropped = examples.num_dropped + examples.num_tokens - self.num_tokens

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, examples: np.ndarray) -> Rows:
        """These of the chosen examples [B]."""
        return self.examples.rows(self.numbers[examples])
