"""Documents of a token store: all of them, or one side of a split by content."""

import numpy as np

from lmft.data.store import TokenStore
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL, Rows, threshold

TRAIN_ON = {"all": 0, "assistant": int(ANSWER), "completion": int(ANSWER), "last_turn": int(LAST_ANSWER)}
"""Flag of the tokens that the loss counts, by `data.train_on`; 0: every token."""


class Documents:
    """Some of a store's documents, in order: the whole store, or one side of a split by content."""

    def __init__(self, store: TokenStore, numbers: np.ndarray | None = None, trainable_bit: int = 0):
        """Select documents.

        Args:
            store: tokens of all documents.
            numbers: [n] numbers of the documents in the store, ascending; None: all.
            trainable_bit: flag of the tokens that may be targets; 0: all may.
        """
        self.store = store
        self.trainable_bit = np.uint8(trainable_bit)
        self.numbers = np.arange(len(store.offsets) - 1) if numbers is None else numbers
        self.starts = store.offsets[self.numbers]  # [n] where each begins in the store
        self.lengths = store.offsets[self.numbers + 1] - self.starts  # [n]
        self.num_tokens = int(self.lengths.sum())
        self.num_bytes = self._sum(store.bytes)
        self.unknown_tokens = self._sum(store.unknown_tokens)
        self.unknown_bytes = self._sum(store.unknown_bytes)

    def __len__(self) -> int:
        return len(self.numbers)

    def _sum(self, of_documents: np.ndarray) -> int:
        return int(of_documents[self.numbers].sum(dtype=np.int64))

    def trainable(self, flags: np.ndarray) -> np.ndarray | None:
        """Return which tokens may be targets, by their flags: bool of the same shape; None: all may."""
        if not self.trainable_bit:
            return None
        return (flags & self.trainable_bit) != 0


def split_by_content(
    store: TokenStore, held_out: float, trainable_bit: int = 0
) -> tuple[Documents, Documents]:
    """Split into training and validation documents: hold out a share by the hashes of the texts alone.

    So equal texts are on the same side, and texts added later move no other text.
    """
    is_validation = is_held_out(store.hashes, held_out)
    train = Documents(store, np.flatnonzero(~is_validation), trainable_bit)
    validation = Documents(store, np.flatnonzero(is_validation), trainable_bit)
    return train, validation


def is_held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Return which documents are held out, by the hashes of their content. [n] uint64 → [n] bool"""
    return hashes < threshold(share)


def share_that_splits(hashes: np.ndarray) -> float | None:
    """Return the smallest share, in hundredths, that leaves documents on both sides; None if none
    does.
    """
    for hundredths in range(1, 100):
        share = hundredths / 100
        if 0 < is_held_out(hashes, share).sum() < len(hashes):
            return share
    return None


def gather(
    documents: Documents, places: np.ndarray, lengths: np.ndarray, pad_id: int, examples: np.ndarray
) -> Rows:
    """Gather tokens of the store into rows.

    Args:
        documents: the documents, whose store is read.
        places: [B, T] places in the store.
        lengths: [B] tokens of each row; padding follows them.
        pad_id: the padding token.
        examples: [B] numbers of the examples.
    """
    tokens = documents.store.tokens.take(places).astype(np.int64)  # faster than by []
    flags = documents.store.flags.take(places)
    if lengths.min() < places.shape[1]:
        is_padding = np.arange(places.shape[1]) >= lengths[:, None]
        tokens[is_padding] = pad_id
        flags[is_padding] = SPECIAL
    return Rows(tokens, flags, lengths, numbers=examples, trainable=documents.trainable(flags))
