"""Examples: the items that batches are made of, and a random sample of them."""

from copy import copy
from typing import Protocol, runtime_checkable

import numpy as np

from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation
from lmft.objectives.base import Rows


class Examples(Protocol):
    """The examples of a split."""

    # tokens of the documents + num_repeated = num_tokens + num_dropped
    num_tokens: int  # in all examples, without padding
    num_repeated: int  # of these, more than once: overlaps of windows, separators around each window
    num_dropped: int  # in no example
    documents_dropped: dict[str, int]  # number of whole documents in no example, by reason
    documents_cut: int  # documents whose end is in no example

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray | None:
        """Tokens of each example [examples]; None if they hardly differ."""
        ...

    def rows(self, examples: np.ndarray) -> Rows:
        """Return the examples with these numbers [B] as one rectangle, padded to the longest."""
        ...

    def numbered(self) -> "Examples":
        """Return the same examples, whose rows have the number of each token's document in the store."""
        ...


@runtime_checkable
class Located(Protocol):
    """Examples that know which document each of their tokens is of."""

    has_one_document_each: bool

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens, as indices among the split's documents. [n]

        Args:
            examples: [n] number of each token's example.
            columns: [n] its column there; columns of padding have no document.
        """
        ...


def limited(examples: "Examples", limit: int | None, seed: int) -> "Examples":
    """Return these examples, or a sample of `limit` of them if they are more."""
    if limit is None or limit >= len(examples):
        return examples
    return Sample(examples, limit, seed)


class Sample:
    """A sample of examples, chosen by seed; each keeps its number, and so its noise."""

    def __init__(self, examples: Examples, size: int, seed: int):
        self.examples = examples
        # [size].
        self.numbers = np.sort(Permutation(len(examples), key(seed, "sample"))(np.arange(size)))
        self.num_tokens = sum(  # a thousand at a time, so that memory stays constant
            int(examples.rows(self.numbers[i : i + 1024]).lengths.sum()) for i in range(0, size, 1024)
        )
        self.has_one_document_each = getattr(examples, "has_one_document_each", False)
        self.lengths = None if examples.lengths is None else examples.lengths[self.numbers]
        self.num_repeated = examples.num_repeated
        self.documents_dropped = examples.documents_dropped
        self.documents_cut = examples.documents_cut
        self.num_dropped = examples.num_dropped + examples.num_tokens - self.num_tokens

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return the examples with these numbers [B] in the sample as one rectangle."""
        return self.examples.rows(self.numbers[examples])

    def numbered(self) -> "Sample":
        """Return the same sample, whose rows tell each token's document."""
        sample = copy(self)
        sample.examples = self.examples.numbered()
        return sample

    def documents_at(self, examples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the documents of tokens. Arguments as in `Located`. [n]"""
        assert isinstance(self.examples, Located)
        return self.examples.documents_at(self.numbers[examples], columns)
