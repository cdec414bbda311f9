"""Documents of a token store: all of them, or one side of a split by content."""

import numpy as np

from lmft.data.store import TokenStore
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL, Rows, threshold

TRAIN_ON = {"all": 0, "assistant": int(ANSWER), "completion": int(ANSWER), "last_turn": int(LAST_ANSWER)}
"""What the loss counts: the flag of its tokens; 0: every token."""


class Documents:
    """Some of a store's documents, in order: the whole store, or one side of a split by content.

    numbers: [n] of the documents in the store; trainable_bit: the flag of the tokens that may be targets, 0:
    all may.
    """

    def __init__(self, store: TokenStore, numbers: np.ndarray | None = None, trainable_bit: int = 0):
        self.store, self.trainable_bit = store, np.uint8(trainable_bit)
        self.numbers = np.arange(len(store.offsets) - 1) if numbers is None else numbers
        self.starts = store.offsets[self.numbers]  # [n] where each begins in the store
        self.lengths = store.offsets[self.numbers + 1] - self.starts  # [n]
        self.num_tokens = int(self.lengths.sum())
        self.num_bytes = int(store.bytes[self.numbers].sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.numbers)

    def trainable(self, flags: np.ndarray) -> np.ndarray | None:
        """Which tokens may be targets, by their flags, as Rows say it: None where all may."""
        return (flags & self.trainable_bit) != 0 if self.trainable_bit else None


def split_by_content(
    store: TokenStore, held_out: float, trainable_bit: int = 0
) -> tuple[Documents, Documents]:
    """(training, validation) documents: a share `held_out` is held out, by the hash of its text alone.

    So equal texts stay together, and texts added later move none from one side to the other.
    """
    apart = is_held_out(store.hashes, held_out)
    train, validation = (Documents(store, np.flatnonzero(side), trainable_bit) for side in (~apart, apart))
    return train, validation


def is_held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Which documents, by their content hashes [n], are held out. [n] bool"""
    return hashes < threshold(share)


def share_that_splits(hashes: np.ndarray) -> float | None:
    """The smallest share, in hundredths, that holds some documents out and leaves others; None where none
    does.
    """
    return next(
        (i / 100 for i in range(1, 100) if 0 < is_held_out(hashes, i / 100).sum() < len(hashes)), None
    )


def gather(
    documents: Documents, places: np.ndarray, lengths: np.ndarray, pad_id: int, examples: np.ndarray
) -> Rows:
    """The store's tokens at these places [B, T]; beyond each row's length, padding."""
    store = documents.store
    tokens, flags = store.tokens.take(places).astype(np.int64), store.flags.take(places)  # faster than by []
    if lengths.min() < places.shape[1]:
        beyond = np.arange(places.shape[1]) >= lengths[:, None]
        tokens[beyond], flags[beyond] = pad_id, SPECIAL
    return Rows(tokens, flags, lengths, numbers=examples, trainable=documents.trainable(flags))
